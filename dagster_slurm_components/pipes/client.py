"""Runs scripts for a step: each call submits a job, follows it, and turns its end into results or a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from dagster_slurm_components.hosts.parked import Parking
from dagster_slurm_components.jobs.retry import NextAttempt
from dagster_slurm_components.jobs.submit import TakenError
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.pipes.abandoned import claim_abandoned
from dagster_slurm_components.pipes.attempt import AnyCall, AttemptRun, JobAttempt, Result
from dagster_slurm_components.pipes.call import wait_for
from dagster_slurm_components.pipes.claim import JobCall, claim_after_others
from dagster_slurm_components.pipes.context import AnyContext
from dagster_slurm_components.pipes.guard import Guard
from dagster_slurm_components.pipes.records import tag_run
from dagster_slurm_components.pipes.results import CompletedJob
from dagster_slurm_components.pipes.step import next_calls
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.resolve import ResolvedScript

_LOOK_AGAIN = 1.0


def run_script(
    context: AnyContext, resolved: ResolvedScript, *, extras: Mapping[str, Any] | None = None
) -> CompletedJob:
    """Run a script as one job and return its results.

    The job of an earlier try of the same call is taken up if it lives, or did its work and nobody collected that. What
    the script's retry policy answers is tried again with a job of its own.

    Raises:
        Failure: The payload failed, the job was stopped, or the scheduler refused it.
        DagsterSlurmError: The host refuses us, or a file of the script is missing.
    """
    step, (number,) = next_calls(context)
    call = JobCall(step, resolved, number, extras or {})
    return step.calls.run(lambda stop: carry_out(call, stop, JobAttempt), name=f"{step.key}-{number}")


def submit_script(
    context: AnyContext, resolved: ResolvedScript, *, extras: Mapping[str, Any] | None = None
) -> ComputeJob:
    """Begin to run a script as one job, and return at once."""
    step, (number,) = next_calls(context)
    return ComputeJob(JobCall(step, resolved, number, extras or {}))


class ComputeJob:
    """A job that was submitted and is followed in the background; ``ComputeResource.submit`` makes it."""

    def __init__(self, asked: JobCall) -> None:
        self._asked = asked
        self.call = asked.step.calls.begin(
            lambda stop: carry_out(asked, stop, JobAttempt), name=f"{asked.step.key}-{asked.number}"
        )
        """The thread that submits and follows it."""

    def result(self) -> CompletedJob:
        """Wait for the job's end; return its results: ``yield from job.result().get_results()``.

        Raises:
            Failure: The payload failed, the job was stopped or cancelled, or the scheduler refused it.
            DagsterSlurmError: The host refuses us, or a file of the script is missing.
        """
        wait_for([self.call], self._asked.step.calls)
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


def prepare(call: JobCall, stop: threading.Event) -> None:
    """Reach the place where the call's jobs run."""
    profile, log = call.resolved.profile, call.step.context.log
    call.guard = guard = Guard(call.step, stop)
    limit = duration_seconds(profile.profile.park_timeout)
    call.place = target(profile, Parking(limit, log.warning, guard.pause))


def carry_out(
    call: AnyCall, stop: threading.Event, attempt: Callable[[AnyCall, Claim], AttemptRun[AnyCall, Result]]
) -> Result:
    """Make attempts until one did its work, or none is left.

    Raises:
        Failure: As ``run_script``.
    """
    prepare(call, stop)
    step, profile, log, guard = call.step, call.resolved.profile, call.step.context.log, call.guard
    call.equip()
    tag_run(step, profile.name, left=bool(call.left_record))
    first = call.first_claim()
    claim = claim_after_others(call, first) if call.may_have_been_tried else first
    if not claim.attempts:
        claim = claim_abandoned(call, first) or claim
    while True:
        try:
            outcome = attempt(call, claim).run()
        except TakenError as error:
            log.info(f"Not submitted: {error} The host is asked what there is.")
            guard.pause(_LOOK_AGAIN)  # never a busy loop, whatever two processes think of one lease
            claim = claim_after_others(call, first)
            continue
        if not isinstance(outcome, NextAttempt):
            return outcome
        log.warning(outcome.why)
        guard.pause(outcome.delay)
        claim = claim.next(outcome.kind, outcome.changed)
