"""One attempt at a call: submits its job, or takes up the one there is, follows it to its end, and judges that."""

import json
import time
from dataclasses import dataclass

import dagster as dg

from dagster_slurm_components.environments.provide import activation_for
from dagster_slurm_components.errors import HostError
from dagster_slurm_components.jobs.dashboard import dashboard
from dagster_slurm_components.jobs.events import MESSAGES, Ended
from dagster_slurm_components.jobs.figures import Figure, job_figures
from dagster_slurm_components.jobs.job_spec import job_spec
from dagster_slurm_components.jobs.lease import COLLECTED, ENDED, LEFT, SUCCESS
from dagster_slurm_components.jobs.model import JobHandle, JobSpec
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.retry import NextAttempt, next_attempt
from dagster_slurm_components.jobs.submit import EnvironmentLackingError, SubmitRejectedError, submit
from dagster_slurm_components.pipes.claim import Claim, JobCall, results_stored
from dagster_slurm_components.pipes.context import open_session, selection
from dagster_slurm_components.pipes.failure import failure, no_start
from dagster_slurm_components.pipes.follow import Follower
from dagster_slurm_components.pipes.guard import SupervisionLostError
from dagster_slurm_components.pipes.partition import partition_of
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.records import tag_job, tell
from dagster_slurm_components.pipes.results import CompletedJob, keep_check_results, typed

_LISTEN = 0.5


@dataclass(frozen=True)
class AttemptRun:
    """One attempt at a call, which is this process's by its claim."""

    call: JobCall
    claim: Claim

    def run(self) -> CompletedJob | NextAttempt:
        """Run one job, once there is room for it; return its results, or what the retry policy answers its end with.

        Raises:
            TakenError: Somebody else's job is there.
            Failure: The payload failed, the job was stopped or cancelled, or the scheduler refused it.
            HostError: The host refuses us.
        """
        slots = self.call.place.slots
        if slots is None:
            return self._run()
        while not slots.acquire(timeout=_LISTEN):
            self.call.guard.check()
        try:
            return self._run()
        finally:
            slots.release()

    def _run(self) -> CompletedJob | NextAttempt:
        context, resolved = self.call.step.context, self.call.resolved
        reader = RunDirectoryMessageReader(f"{self._run_dir}/{MESSAGES}", selection(context))
        session = open_session(context, reader, self._run_dir, self.call.extras)
        handle, spec = self._submit(session)
        follower = Follower(self.call, self.claim, handle, reader)
        ended = follower.run()
        outcome = judge(ended, follower.stderr_tail)
        figures = self._figures(handle, ended)
        state = ended.observation.state
        # A payload may fail where Slurm sees none: its exit code tells.
        failed = state if state != SUCCESS else "FAILED"
        ended_at = self._close(SUCCESS if outcome.success else failed, follower)
        if outcome.success:
            return CompletedJob(session, typed(figures), stored=lambda: self._collect(ended_at))
        options, retries = dict(spec.sbatch), self.claim.note.retries
        again = next_attempt(resolved.script.retry, outcome, ended, options=options, retries=retries)
        if again is not None:
            return again
        keep_check_results(session, typed(figures))
        raise failure(
            outcome,
            resolved,
            exception=reader.exception,
            stderr=follower.stderr_tail,
            figures=figures,
            context=context,
        )

    def leave(self) -> JobHandle:
        """Submit one job, or take up the one there is, and leave it to the sensor.

        Raises:
            TakenError: Somebody else's job is there.
            SupervisionLostError: Somebody else has taken the job over.
            Failure: The scheduler refused the job.
            HostError: The host refuses us.
        """
        context = self.call.step.context
        reader = RunDirectoryMessageReader(f"{self._run_dir}/{MESSAGES}")
        handle, _ = self._submit(open_session(context, reader, self._run_dir, self.call.extras, leaves=True))
        if self.call.place.leases.change(self._run_dir, self.claim.epoch, LEFT) is None:
            raise SupervisionLostError(f"The job in {self._run_dir} is somebody else's by now.")
        return handle

    @property
    def _run_dir(self) -> str:
        return f"{self.call.place.workdir}/{self.claim.identity.folder}"

    def _submit(self, session: dg.PipesSession) -> tuple[JobHandle, JobSpec]:
        """Submit the job; an environment that was there lately and is not any more is made first."""
        call, info = self.call, self.call.step.context.log.info
        try:
            try:
                return self._submit_once(session)
            except EnvironmentLackingError as error:
                info(f"Not submitted yet: {error.message}")
            call.activation = activation_for(
                call.resolved, call.place.satellite, call.place.workdir, checked=True, tell=info
            )
            return self._submit_once(session)
        except SubmitRejectedError as error:
            self.call.place.direct.leases.change(self._run_dir, self.claim.epoch, ENDED, outcome="REFUSED")
            text = f"The scheduler refused the job: {error}"
            raise no_start(text, error.rejection.option, call.resolved) from error

    def _submit_once(self, session: dg.PipesSession) -> tuple[JobHandle, JobSpec]:
        call, place = self.call, self.call.place
        partition = partition_of(call.step.context, self._run_dir)
        messages = {"DAGSTER_SLURM_MESSAGES": f"{self._run_dir}/{MESSAGES}"}
        spec = job_spec(
            call.resolved,
            self.claim.identity,
            activation=call.activation,
            context=json.dumps(session.context_data).encode(),
            env={**partition.variables, **call.env, **session.get_bootstrap_env_vars(), **messages},
            partition_keys=partition.keys,
            changed=self.claim.note.changed,
            left=call.left,
        )
        request, info, pause = self.claim.request(call), call.step.context.log.info, call.guard.pause
        handle = submit(place, spec, claim=request, tell=info, sleep=pause)
        how = "taken up again" if self.claim.adopted and handle.outcome != "submitted" else handle.outcome
        call.handle = handle
        tag_job(call.step, handle.job_id)
        tell(
            call.step,
            f"Job {handle.job_id} {how} on {place.satellite.host.name} "
            f"(profile {call.resolved.profile.name}), run directory {handle.run_dir}",
            {"job/id": handle.job_id, "job/run_directory": handle.run_dir},
        )
        return handle, spec

    def _close(self, outcome: str, follower: Follower) -> float:
        """Write down how the job ended, before anything of it is handed on; return when.

        Raises:
            SupervisionLostError: Somebody else has taken the job over.
        """
        leases, now = self.call.place.leases, time.time()
        if not leases.change(self._run_dir, self.claim.epoch, ENDED, outcome=outcome, shown=follower.shown):
            raise SupervisionLostError(f"The job in {self._run_dir} is followed by somebody else by now.")
        return now

    def _collect(self, since: float) -> None:
        """Write down that Dagster has stored the results, if it has: they are never handed over again."""
        step = self.call.step
        if step.run is not None and not results_stored(step.instance, step.run_id, step.key, since):
            return  # somebody made a list of them, and has not yielded them yet: whoever comes next asks Dagster
        try:
            if self.call.place.direct.leases.change(self._run_dir, self.claim.epoch, COLLECTED) is None:
                step.context.log.warning(f"The job in {self._run_dir} is followed by somebody else by now.")
        except HostError as error:
            step.context.log.info(f"That the results are collected could not be written down yet: {error}")

    def _figures(self, handle: JobHandle, ended: Ended) -> dict[str, Figure]:
        profile = self.call.resolved.profile
        figures = job_figures(handle, ended, profile=profile.name, host=self.call.place.satellite.host.name)
        way = dashboard(ended.evidence.status, profile.profile)
        return {**figures, **({"job/ray_dashboard": way.metadata} if way else {})}
