"""Runs one script for one step: submits, follows, and turns the end into results or a failure."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.environments.provide import activation_for
from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.parked import Parking
from dagster_slurm_components.jobs.events import MESSAGES
from dagster_slurm_components.jobs.lease import ENDED
from dagster_slurm_components.jobs.lease_store import LeaseStore
from dagster_slurm_components.jobs.model import JobSpec
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.retry import NextAttempt, next_attempt
from dagster_slurm_components.jobs.submit import EnvironmentLackingError, SubmitRejectedError, TakenError
from dagster_slurm_components.pipes.attempt import (
    AttemptRun,
    CancelledByCallerError,
    Followed,
    Progress,
    environment,
)
from dagster_slurm_components.pipes.call import Call, wait_for
from dagster_slurm_components.pipes.claim import Claim, Claims, results_stored
from dagster_slurm_components.pipes.context import RunDirectoryContextInjector
from dagster_slurm_components.pipes.dashboard import dashboard
from dagster_slurm_components.pipes.failure import failure, has_retry_policy, rejection, stuck_failure
from dagster_slurm_components.pipes.guard import Guard
from dagster_slurm_components.pipes.job_spec import job_spec
from dagster_slurm_components.pipes.metadata import Value, job_metadata, typed
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.records import tag_run
from dagster_slurm_components.pipes.results import CompletedJob, keep_check_results
from dagster_slurm_components.pipes.session import open_session
from dagster_slurm_components.pipes.step import CALLS, AnyContext, Step
from dagster_slurm_components.pipes.stuck import StuckError
from dagster_slurm_components.pipes.target import Target, heal, target
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.resolve import ResolvedScript

SUCCESS = "COMPLETED"
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
    step, (number,) = CALLS.next(context)
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
        self._progress = Progress()
        run = _ScriptRun(step, resolved, number, extras or {}, env or {}, self._progress)
        self.call = Call(run.run, name=f"dagster-slurm-{step.key}-{number}")
        """The thread that submits and follows it."""
        self._step = step
        step.calls.add(self.call)

    def result(self) -> CompletedJob:
        """Wait for the job's end; return its results: ``yield from job.result().get_results()``.

        Raises:
            Failure: The payload failed, the job was stopped or cancelled, or the scheduler refused it.
            DagsterSlurmError: The host refuses us, or a file of the script is missing.
        """
        wait_for([self.call], list(self._step.calls))
        return self.call.outcome()

    @property
    def done(self) -> bool:
        """Whether ``result`` would return, or raise, at once."""
        return self.call.done

    @property
    def job_id(self) -> str | None:
        """Slurm's id of the job, or a process's; nothing before it was submitted."""
        handle = self._progress.handle
        return handle.job_id if handle else None

    @property
    def state(self) -> str:
        """Slurm's word for the job's state: ``PENDING``, ``RUNNING``, ``COMPLETED``...; first ``SUBMITTED``."""
        return self._progress.observation.state

    def cancel(self) -> None:
        """Cancel the job; ``result`` then raises a ``Failure`` that says so."""
        self._progress.cancel.set()


@dataclass(frozen=True)
class _ScriptRun:
    """One call, with all its attempts."""

    step: Step
    resolved: ResolvedScript
    number: int
    extras: Mapping[str, Any]
    env: Mapping[str, str]
    progress: Progress

    def run(self, stop: threading.Event) -> CompletedJob:
        """Make attempts until one did its work, or none is left.

        Raises:
            Failure: As ``run_script``.
        """
        context, profile = self.step.context, self.resolved.profile
        guard = Guard(self.step, stop)
        parking = Parking(
            limit=duration_seconds(profile.profile.park_timeout),
            tell=context.log.warning,
            heal=heal(profile),
            sleep=guard.pause,
        )
        place = target(profile, parking)
        activation = activation_for(self.resolved, place.satellite, place.workdir, tell=context.log.info)
        tag_run(self.step, profile.name)
        content = self.resolved.content_digest()
        extras = {**self.extras, "partition_keys": self.step.partition_keys}
        digest = _digest(content, self.resolved, activation, extras, self.env)
        identity = self.step.identity(self.number)
        claims = Claims(self.step, place, profile.name, identity, digest, guard.pause)
        call = _Call(self, place, parking, activation, guard, digest, content)
        claim = claims.claim() if self.step.may_have_been_tried else claims.first()
        while True:
            try:
                tried = call.attempt(claim)
            except TakenError as error:
                context.log.info(f"Not submitted: {error} The host is asked what there is.")
                guard.pause(_LOOK_AGAIN)  # never a busy loop, whatever two processes think of one lease
                claim = claims.claim()
                continue
            if isinstance(tried, CompletedJob):
                return tried
            context.log.warning(tried.why)
            guard.pause(tried.delay)
            claim = claim.next(tried.kind, tried.changed)


@dataclass(frozen=True)
class _Call:
    """What all attempts at a call have in common."""

    script: _ScriptRun
    place: Target
    parking: Parking
    activation: Activation
    guard: Guard
    digest: str
    content: str

    def attempt(self, claim: Claim) -> CompletedJob | NextAttempt:
        """Run one job; return its results, or what the retry policy answers its end with.

        Raises:
            TakenError: Somebody else's job is there.
            Failure: As ``run_script``.
        """
        step, resolved = self.script.step, self.script.resolved
        run_dir = f"{self.place.workdir}/{claim.identity.folder}"
        injector = RunDirectoryContextInjector(f"{run_dir}/context.json")
        reader = RunDirectoryMessageReader(f"{run_dir}/{MESSAGES}")
        with open_session(step.context, injector, reader, self.script.extras) as session:

            def spec_with(activation: Activation) -> JobSpec:
                own = environment(session.get_bootstrap_env_vars(), run_dir)
                return job_spec(
                    resolved,
                    claim.identity,
                    activation=activation,
                    context=injector.content,
                    env={**self.script.env, **own},
                    changed=claim.note.changed,
                )

            spec = spec_with(self.activation)
            attempt = AttemptRun(
                step, resolved, self.place, self.parking, self.guard, claim, self.script.progress
            )
            followed = self._followed(attempt, claim, spec, spec_with, reader)
        outcome = judge(followed.ended, followed.stderr)
        figures = self._figures(followed)
        word = followed.ended.observation.state
        ended_at = attempt.close(
            SUCCESS if outcome.success else word if word != SUCCESS else "FAILED", followed.shown
        )
        if outcome.success:
            return CompletedJob(
                session, typed(figures), stored=lambda: self._collect(claim, run_dir, ended_at)
            )
        retry, retries = resolved.script.retry, claim.note.retries
        again = next_attempt(retry, outcome, followed.ended, options=dict(spec.sbatch), retries=retries)
        if again is not None:
            return again
        keep_check_results(session, typed(figures))
        raise failure(
            followed.handle,
            outcome,
            resolved,
            exception=reader.exception,
            stderr=followed.stderr,
            figures=figures,
            allow_retries=outcome.retryable or has_retry_policy(step.context),
        )

    def _followed(
        self,
        attempt: AttemptRun,
        claim: Claim,
        spec: JobSpec,
        spec_with: Callable[[Activation], JobSpec],
        reader: RunDirectoryMessageReader,
    ) -> Followed:
        """Submit and follow; an environment that was there lately and is not any more is made first."""
        resolved, info = self.script.resolved, self.script.step.context.log.info
        request = claim.request(self.digest, self.content, self.script.step.owner)
        try:
            try:
                return attempt.run(spec, request, reader)
            except EnvironmentLackingError as error:
                info(f"Not submitted yet: {error.message}")
                activation = activation_for(
                    resolved, self.place.satellite, self.place.workdir, checked=True, tell=info
                )
            return attempt.run(spec_with(activation), request, reader)
        except SubmitRejectedError as error:
            self._leases.change(
                f"{self.place.workdir}/{claim.identity.folder}", claim.epoch, ENDED, outcome="REFUSED"
            )
            raise rejection(error, resolved) from error
        except StuckError as error:
            raise stuck_failure(error, resolved) from error
        except CancelledByCallerError:
            handle = self.script.progress.handle
            said = f"Job {handle.job_id if handle else ''} was cancelled by the code that submitted it."
            raise dg.Failure(said, allow_retries=False) from None

    @property
    def _leases(self) -> LeaseStore:
        return LeaseStore(self.place.direct, self.place.workdir)

    def _collect(self, claim: Claim, run_dir: str, since: float) -> None:
        """Write down that Dagster has stored the results, if it has: they are never handed over again."""
        step = self.script.step
        if step.run is not None and not results_stored(step.instance, step.run_id, step.key, since):
            return  # somebody made a list of them, and has not yielded them yet: whoever comes next asks Dagster
        try:
            if self._leases.change(run_dir, claim.epoch, "collected") is None:
                step.context.log.warning(f"The job in {run_dir} is followed by somebody else by now.")
        except HostError as error:
            step.context.log.info(f"That the results are collected could not be written down yet: {error}")

    def _figures(self, followed: Followed) -> Mapping[str, Value]:
        resolved = self.script.resolved
        found = dashboard(followed.ended.evidence.status, resolved.profile.profile)
        seen = {"job/ray_dashboard": found.metadata} if found else {}
        figures = job_metadata(
            followed.handle,
            followed.ended,
            profile=resolved.profile.name,
            host=self.place.satellite.host.name,
            submitted=followed.handle.submitted,
        )
        return {**figures, **seen}


def _digest(
    content: str,
    resolved: ResolvedScript,
    activation: Activation,
    extras: Mapping[str, Any],
    env: Mapping[str, str],
) -> str:
    """Return the hash of all that a job is made of; secrets count as they are written, not as they are."""
    raw = {
        "content": content,
        "profile": resolved.profile.name,
        "resources": resolved.script.resources.model_dump(mode="json"),
        "environment": [activation.arguments().hex(), activation.wrapper, activation.files],
        "extras": extras,
        "env": env,
    }
    return hashlib.sha256(json.dumps(raw, sort_keys=True, default=repr).encode()).hexdigest()
