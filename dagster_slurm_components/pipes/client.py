"""Runs one script for one step: submits, follows, and turns the end into results or a failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.parked import Parking
from dagster_slurm_components.jobs.events import MESSAGES
from dagster_slurm_components.jobs.model import JobSpec
from dagster_slurm_components.jobs.outcome import JobOutcome, judge
from dagster_slurm_components.jobs.retry import NextAttempt, next_attempt
from dagster_slurm_components.jobs.submit import EnvironmentLackingError, SubmitRejectedError
from dagster_slurm_components.pipes.attempt import Attempt, Followed, environment
from dagster_slurm_components.pipes.context import RunDirectoryContextInjector
from dagster_slurm_components.pipes.dashboard import dashboard
from dagster_slurm_components.pipes.environment import activation_for
from dagster_slurm_components.pipes.failure import failure, has_retry_policy, rejection, stuck_failure
from dagster_slurm_components.pipes.guard import Guard
from dagster_slurm_components.pipes.identity import Context, at, begin
from dagster_slurm_components.pipes.job_spec import job_spec
from dagster_slurm_components.pipes.launches import Launch, record, record_end
from dagster_slurm_components.pipes.metadata import Value, job_metadata, typed
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.results import CompletedJob, keep_check_results
from dagster_slurm_components.pipes.session import open_session
from dagster_slurm_components.pipes.stuck import StuckError
from dagster_slurm_components.pipes.target import Target, heal, target
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.resolve import ResolvedScript


def run_script(
    context: Context, resolved: ResolvedScript, *, extras: Mapping[str, Any] | None = None
) -> CompletedJob:
    """Run a script as one job and return its results.

    The job of an earlier try of the same step is taken up if it lives or did its work. What the script's retry policy
    answers is tried again with a job of its own.

    Args:
        context: Dagster's context of the step.
        resolved: The script in its profile.
        extras: What the payload receives as Pipes extras.

    Raises:
        Failure: The payload failed, the job was stopped, or the scheduler refused it.
        DagsterSlurmError: The host refuses us, or a file of the script is missing.
    """
    waiting = Guard(context.instance, context.run.run_id, step_worker=False)
    parking = Parking(
        limit=duration_seconds(resolved.profile.profile.park_timeout),
        tell=context.log.warning,
        heal=heal(resolved.profile),
        sleep=waiting.pause,
    )
    place = target(resolved.profile, parking)
    activation = activation_for(resolved, place, tell=context.log.info)
    start = begin(context, place, resolved.profile.name, resolved.fingerprint())
    guard = Guard(context.instance, context.run.run_id, step_worker=start.step_worker)
    parking = replace(parking, sleep=guard.pause)
    step = _Step(context, resolved, place, parking, activation, guard, extras or {})
    launch, adopted = start.launch, start.adopted
    while True:
        tried = step.attempt(launch, adopted=adopted)
        if isinstance(tried, CompletedJob):
            return tried
        context.log.warning(tried.why)
        guard.pause(tried.delay)
        retries = {**launch.retries, tried.kind: launch.retries.get(tried.kind, 0) + 1}
        changed = {**launch.changed, **tried.changed}
        launch = at(replace(launch, identity=launch.identity.next(), retries=retries, changed=changed), place)
        adopted = False


@dataclass(frozen=True)
class _Step:
    """What all attempts of a step have in common."""

    context: Context
    resolved: ResolvedScript
    place: Target
    parking: Parking
    activation: Activation
    guard: Guard
    extras: Mapping[str, Any]

    def attempt(self, launch: Launch, *, adopted: bool) -> CompletedJob | NextAttempt:
        """Run one job; return its results, or what the retry policy answers its end with.

        Raises:
            Failure: As ``run_script``.
        """
        context, resolved = self.context, self.resolved
        injector = RunDirectoryContextInjector(f"{launch.run_dir}/context.json")
        reader = RunDirectoryMessageReader(f"{launch.run_dir}/{MESSAGES}")
        with open_session(context, injector, reader, self.extras) as session:

            def spec_with(activation: Activation) -> JobSpec:
                return job_spec(
                    resolved,
                    launch.identity,
                    activation=activation,
                    context=injector.content,
                    env=environment(session.get_bootstrap_env_vars(), launch.run_dir),
                    changed=launch.changed,
                )

            spec = spec_with(self.activation)
            record(context.instance, context.run, launch, adopted=adopted, pause=self.guard.pause)
            attempt = Attempt(context, resolved, self.place, self.parking, self.guard, launch, adopted)
            try:
                followed = self._run(attempt, spec, spec_with, reader)
            except SubmitRejectedError as error:
                record_end(context.instance, context.run, launch.identity, "refused")
                raise rejection(error, resolved) from error
            except StuckError as error:
                raise stuck_failure(error, resolved) from error
        outcome = judge(followed.ended, followed.stderr)
        figures = self._figures(followed)
        if outcome.success:
            return CompletedJob(session, typed(figures), stored=followed.delivered)
        record_end(context.instance, context.run, launch.identity, followed.ended.observation.state)
        again = self._again(outcome, followed, launch, dict(spec.sbatch))
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
            allow_retries=outcome.retryable or has_retry_policy(context),
        )

    def _run(
        self,
        attempt: Attempt,
        spec: JobSpec,
        spec_with: Callable[[Activation], JobSpec],
        reader: RunDirectoryMessageReader,
    ) -> Followed:
        """Submit and follow; an environment that was there lately and is not any more is made first."""
        try:
            return attempt.run(spec, reader)
        except EnvironmentLackingError as error:
            tell = self.context.log.info
            tell(f"Not submitted yet: {error.message}")
            activation = activation_for(self.resolved, self.place, checked=True, tell=tell)
        return attempt.run(spec_with(activation), reader)

    def _figures(self, followed: Followed) -> Mapping[str, Value]:
        found = dashboard(followed.ended.evidence.status, self.resolved.profile.profile)
        seen = {"job/ray_dashboard": found.metadata} if found else {}
        figures = job_metadata(
            followed.handle,
            followed.ended,
            profile=self.resolved.profile.name,
            host=self.place.satellite.host.name,
            submitted=followed.handle.submitted,
        )
        return {**figures, **seen}

    def _again(
        self, outcome: JobOutcome, followed: Followed, launch: Launch, options: Mapping[str, str]
    ) -> NextAttempt | None:
        policy, retries = self.resolved.script.retry, launch.retries
        return next_attempt(policy, outcome, followed.ended, options=options, retries=retries)
