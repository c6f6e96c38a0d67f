"""One attempt at a call: submits its job, or takes up the one there is, follows it to its end, and judges that."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import dagster as dg

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.calls import LeaseRenewal, LeaseRequest
from dagster_slurm_components.jobs.cancel import cancel
from dagster_slurm_components.jobs.dashboard import DashboardNotice, dashboard
from dagster_slurm_components.jobs.ending import JobEnder, LeaseLostError
from dagster_slurm_components.jobs.events import MESSAGES, STDERR, STDOUT, Ended, Watch
from dagster_slurm_components.jobs.figures import Figure, job_figures
from dagster_slurm_components.jobs.job_spec import job_spec
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, COLLECTED, ENDED
from dagster_slurm_components.jobs.lease_store import LeaseStore
from dagster_slurm_components.jobs.model import JobHandle, JobSpec
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.retry import NextAttempt, next_attempt
from dagster_slurm_components.jobs.stuck import StuckTimer
from dagster_slurm_components.jobs.submit import EnvironmentLackingError, SubmitRejectedError, submit
from dagster_slurm_components.jobs.target import Target, heal
from dagster_slurm_components.pipes.claim import Claim, JobCall, results_stored
from dagster_slurm_components.pipes.context import open_session, selection
from dagster_slurm_components.pipes.environment import activation_for
from dagster_slurm_components.pipes.failure import failure, no_start
from dagster_slurm_components.pipes.follow import Follower
from dagster_slurm_components.pipes.guard import Guard, StoppedError, SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.records import keeps_runs, left_job, tag_job, tell
from dagster_slurm_components.pipes.results import CompletedJob, keep_check_results, typed

SUCCESS = "COMPLETED"
_LISTEN = 1.0
_TAIL = 8 * 1024
"""Bytes of a stream that are read again for the last lines of a failure."""
_CANCEL_ANSWER = 120.0


@dataclass(frozen=True)
class AttemptRun:
    """One attempt.

    Attributes:
        call: What was asked for; its caller sees there how it goes.
        place: Where it runs; its calls wait for a lost host.
        guard: Whether this process still speaks for its run.
        activation: How the job's environment is activated.
        claim: Which attempt it is, and since when it is ours.
        request: What the host is told of who submits.
    """

    call: JobCall
    place: Target
    guard: Guard
    activation: Activation
    claim: Claim
    request: LeaseRequest

    def run(self) -> CompletedJob | NextAttempt:
        """Run one job; return its results, or what the retry policy answers its end with.

        Raises:
            TakenError: Somebody else's job is there.
            Failure: The payload failed, the job was stopped or cancelled, or the scheduler refused it.
            HostError: The host refuses us.
        """
        context, resolved = self.call.step.context, self.call.resolved
        reader = RunDirectoryMessageReader(f"{self._run_dir}/{MESSAGES}", selection(context))
        session = open_session(context, reader, self._run_dir, self.call.extras)
        handle, spec = self._submit(session)
        ended, follower = self._follow(handle, reader)
        outcome = judge(ended, follower.stderr_tail)
        figures = self._figures(handle, ended)
        state = ended.observation.state
        failed = (
            state if state != SUCCESS else "FAILED"
        )  # ended as Slurm sees it, with an exit code of its own
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

    @property
    def _run_dir(self) -> str:
        return f"{self.place.workdir}/{self.claim.identity.folder}"

    def _submit(self, session: dg.PipesSession) -> tuple[JobHandle, JobSpec]:
        """Submit the job; an environment that was there lately and is not any more is made first."""
        resolved, info = self.call.resolved, self.call.step.context.log.info
        try:
            try:
                return self._submit_with(session, self.activation)
            except EnvironmentLackingError as error:
                info(f"Not submitted yet: {error.message}")
            return self._submit_with(session, activation_for(resolved, self.place, checked=True, tell=info))
        except SubmitRejectedError as error:
            self._direct.change(self._run_dir, self.claim.epoch, ENDED, outcome="REFUSED")
            text = f"The scheduler refused the job: {error}"
            raise no_start(text, error.rejection.option, resolved) from error

    def _submit_with(self, session: dg.PipesSession, activation: Activation) -> tuple[JobHandle, JobSpec]:
        call, place = self.call, self.place
        messages = {"DAGSTER_SLURM_MESSAGES": f"{self._run_dir}/{MESSAGES}"}
        spec = job_spec(
            call.resolved,
            self.claim.identity,
            activation=activation,
            context=json.dumps(session.context_data).encode(),
            env={**call.env, **session.get_bootstrap_env_vars(), **messages},
            changed=self.claim.note.changed,
        )
        info, pause = call.step.context.log.info, self.guard.pause
        handle = submit(
            place.satellite, place.scheduler, spec, place.workdir, claim=self.request, tell=info, sleep=pause
        )
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

    def _follow(self, handle: JobHandle, reader: RunDirectoryMessageReader) -> tuple[Ended, Follower]:
        """Follow the job to its end; who has to leave it cancels it, or leaves it in good order."""
        call, shown, log = self.call, self.claim.shown, self.call.step.context.log
        profile = call.resolved.profile
        begins = {name: max(0, shown.offsets.get(name, 0) - _TAIL) for name in (STDOUT, STDERR)}
        watch = self.place.watcher.watch(handle, offsets=begins, inodes=shown.inodes, epoch=self.claim.epoch)
        follower = Follower(watch, reader, log, heal=heal(profile), shown=shown)
        try:
            return self._to_its_end(handle, watch, follower), follower
        except SupervisionLostError as lost:
            log.warning(f"{lost} This process leaves job {handle.job_id}.")
            if lost.cancelled or call.cancel.is_set():
                self._cancel(handle, follower)
            raise
        except StoppedError:
            wanted = call.cancel.is_set() or self.guard.terminated
            if wanted or profile.profile.on_shutdown == "cancel":
                self._cancel(handle, follower)
            else:
                self._leave(handle, follower)
            raise
        finally:
            watch.close()

    def _to_its_end(self, handle: JobHandle, watch: Watch, follower: Follower) -> Ended:
        """Follow a job until it has ended, or this process has no say any more."""
        call, resolved = self.call, self.call.resolved
        timer = StuckTimer(resolved.script.stuck)
        notice = DashboardNotice(resolved.profile.profile, handle.run_dir, call.step.context.log.info)
        asked = False
        while (ended := follower.follow(_LISTEN)) is None:
            self.guard.check()
            call.observation = follower.observation
            watch.shown = follower.shown
            notice.look(watch.evidence.status)
            stuck = timer.check(follower.observation)
            if stuck is not None:
                self._cancel(handle, follower)
                raise no_start(str(stuck), stuck.reason.option, resolved) from stuck
            if call.cancel.is_set():
                self._cancel(handle, follower)
                text = f"Job {handle.job_id} was cancelled by the code that submitted it."
                raise dg.Failure(text, allow_retries=False)
            if follower.lease_state == CANCEL_WANTED and not asked:
                asked = True  # whoever wrote that may be gone before it was done
                cancel(self.place.direct, self.place.scheduler, handle, patience=_CANCEL_ANSWER)
        call.observation = ended.observation
        self.guard.check(thoroughly=True)
        return ended

    def _cancel(self, handle: JobHandle, follower: Follower) -> None:
        """Cancel the job. Where its host can't be reached, the sensor does once it can: the lease tells of it."""
        log, place = self.call.step.context.log, self.place
        ender = JobEnder(place.direct, place.scheduler, place.watcher, place.workdir)
        try:
            ended = ender.end(handle, self.claim.epoch, follower.follow)
        except LeaseLostError as error:
            log.warning(f"{error} It is left to them.")
        except HostError as error:
            log.error(
                f"Job {handle.job_id} could not be cancelled, and may run on: {error} Once the host answers, the sensor"
                f" `slurm_jobs` ends the jobs of cancelled runs; `dg-slurm jobs cancel {handle.job_id}` ends this one."
            )
        else:
            if ended is None:
                log.warning(f"Job {handle.job_id} was cancelled, but its end is not confirmed yet.")
            else:
                self.call.observation = ended.observation
                log.info(f"Job {handle.job_id} was cancelled and has ended: {ended.observation.state}.")

    def _leave(self, handle: JobHandle, follower: Follower) -> None:
        """Leave the job to whoever takes it up; what was shown of it is written down."""
        step = self.call.step
        renewal = LeaseRenewal(handle.run_dir, self.claim.epoch, follower.shown.written())
        try:
            self.place.direct.follow([], [renewal], total=0)
        except HostError as error:
            step.context.log.info(f"What was shown of job {handle.job_id} could not be written down: {error}")
        kept = step.run is not None and keeps_runs(step.instance)
        profile = self.call.resolved.profile.name
        step.context.log.info(left_job(handle.job_id, step.run_id, profile, kept=kept))

    def _close(self, outcome: str, follower: Follower) -> float:
        """Write down how the job ended, before anything of it is handed on; return when.

        Raises:
            SupervisionLostError: Somebody else has taken the job over.
        """
        leases, now = LeaseStore(self.place.satellite, self.place.workdir), time.time()
        if not leases.change(self._run_dir, self.claim.epoch, ENDED, outcome=outcome, shown=follower.shown):
            raise SupervisionLostError(f"The job in {self._run_dir} is followed by somebody else by now.")
        return now

    @property
    def _direct(self) -> LeaseStore:
        return LeaseStore(self.place.direct, self.place.workdir)

    def _collect(self, since: float) -> None:
        """Write down that Dagster has stored the results, if it has: they are never handed over again."""
        step = self.call.step
        if step.run is not None and not results_stored(step.instance, step.run_id, step.key, since):
            return  # somebody made a list of them, and has not yielded them yet: whoever comes next asks Dagster
        try:
            if self._direct.change(self._run_dir, self.claim.epoch, COLLECTED) is None:
                step.context.log.warning(f"The job in {self._run_dir} is followed by somebody else by now.")
        except HostError as error:
            step.context.log.info(f"That the results are collected could not be written down yet: {error}")

    def _figures(self, handle: JobHandle, ended: Ended) -> dict[str, Figure]:
        profile = self.call.resolved.profile
        figures = job_figures(handle, ended, profile=profile.name, host=self.place.satellite.host.name)
        way = dashboard(ended.evidence.status, profile.profile)
        return {**figures, **({"job/ray_dashboard": way.metadata} if way else {})}
