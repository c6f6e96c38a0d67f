"""Runs scripts for a step: each call submits a job, follows it, and turns its end into results or a failure."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from dagster_slurm_components.hosts.parked import Parking
from dagster_slurm_components.jobs.submit import TakenError
from dagster_slurm_components.jobs.target import heal, target
from dagster_slurm_components.pipes.attempt import AttemptRun
from dagster_slurm_components.pipes.call import Call, wait_for
from dagster_slurm_components.pipes.claim import Claims, JobCall
from dagster_slurm_components.pipes.environment import activation_for
from dagster_slurm_components.pipes.guard import Guard
from dagster_slurm_components.pipes.records import tag_run
from dagster_slurm_components.pipes.results import CompletedJob
from dagster_slurm_components.pipes.step import AnyContext, Step, next_calls
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.resolve import ResolvedScript

_LOOK_AGAIN = 1.0


def run_script(
    context: AnyContext, resolved: ResolvedScript, *, extras: Mapping[str, Any] | None = None
) -> CompletedJob:
    """Run a script as one job and return its results.

    The job of an earlier try of the same call is taken up if it lives, or did its work and nobody collected that. What
    the script's retry policy answers is tried again with a job of its own.

    Args:
        context: Dagster's context of the step.
        resolved: The script in its profile.
        extras: What the payload receives as Pipes extras.

    Raises:
        Failure: The payload failed, the job was stopped, or the scheduler refused it.
        DagsterSlurmError: The host refuses us, or a file of the script is missing.
    """
    return submit_script(context, resolved, extras=extras).result()


def submit_script(
    context: AnyContext, resolved: ResolvedScript, *, extras: Mapping[str, Any] | None = None
) -> ComputeJob:
    """Begin to run a script as one job, and return at once; arguments as for ``run_script``."""
    step, (number,) = next_calls(context)
    return ComputeJob(step, resolved, number, extras)


class ComputeJob:
    """A job that was submitted and is followed in the background.

    Args:
        step: The step.
        resolved: The script in its profile.
        number: The number of the call in the step.
        extras: What the payload receives as Pipes extras.
        env: Variables for this call alone.
    """

    def __init__(
        self,
        step: Step,
        resolved: ResolvedScript,
        number: int,
        extras: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._asked = asked = JobCall(step, resolved, number, extras or {}, env or {})
        self.call = Call(lambda stop: _run(asked, stop), name=f"dagster-slurm-{step.key}-{number}")
        """The thread that submits and follows it."""
        step.calls.add(self.call)

    def result(self) -> CompletedJob:
        """Wait for the job's end; return its results: ``yield from job.result().get_results()``.

        Raises:
            Failure: The payload failed, the job was stopped or cancelled, or the scheduler refused it.
            DagsterSlurmError: The host refuses us, or a file of the script is missing.
        """
        wait_for([self.call], list(self._asked.step.calls))
        return self.call.outcome()

    @property
    def done(self) -> bool:
        """Whether ``result`` would return, or raise, at once."""
        return self.call.done

    @property
    def job_id(self) -> str | None:
        """Slurm's id of the job, or a process's; nothing before it was submitted."""
        handle = self._asked.handle
        return handle.job_id if handle else None

    @property
    def state(self) -> str:
        """Slurm's word for the job's state: ``PENDING``, ``RUNNING``, ``COMPLETED``...; first ``SUBMITTED``."""
        return self._asked.observation.state

    def cancel(self) -> None:
        """Cancel the job; ``result`` then raises a ``Failure`` that says so."""
        self._asked.cancel.set()


def _run(call: JobCall, stop: threading.Event) -> CompletedJob:
    """Make attempts until one did its work, or none is left.

    Raises:
        Failure: As ``run_script``.
    """
    step, profile, log = call.step, call.resolved.profile, call.step.context.log
    guard = Guard(step, stop)
    limit = duration_seconds(profile.profile.park_timeout)
    place = target(profile, Parking(limit, log.warning, heal(profile), guard.pause))
    activation = activation_for(call.resolved, place, tell=log.info)
    tag_run(step, profile.name)
    claims = Claims(call, place, activation, guard.pause)
    claim = claims.claim() if step.may_have_been_tried else claims.first()
    while True:
        try:
            outcome = AttemptRun(call, place, guard, activation, claim, claims.request(claim)).run()
        except TakenError as error:
            log.info(f"Not submitted: {error} The host is asked what there is.")
            guard.pause(_LOOK_AGAIN)  # never a busy loop, whatever two processes think of one lease
            claim = claims.claim()
            continue
        if isinstance(outcome, CompletedJob):
            return outcome
        log.warning(outcome.why)
        guard.pause(outcome.delay)
        claim = claim.next(outcome.kind, outcome.changed)
