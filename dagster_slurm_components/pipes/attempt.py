"""One attempt at a call: submits its job, or takes up the one there is, and follows it to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.calls import LeaseRenewal, LeaseRequest
from dagster_slurm_components.hosts.parked import Parking
from dagster_slurm_components.jobs.ending import JobEnder, LeaseLostError, cancel
from dagster_slurm_components.jobs.events import MESSAGES, STDERR, STDOUT, Ended, Watch
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, ENDED, OutputPosition
from dagster_slurm_components.jobs.lease_store import LeaseStore
from dagster_slurm_components.jobs.model import JobHandle, JobSpec
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.submit import submit
from dagster_slurm_components.pipes.advice import keeps_runs, left_job
from dagster_slurm_components.pipes.claim import Claim
from dagster_slurm_components.pipes.dashboard import DashboardNotice
from dagster_slurm_components.pipes.follow import Follower
from dagster_slurm_components.pipes.guard import Guard, StoppedError, SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.records import tag_job, tell
from dagster_slurm_components.pipes.step import Step
from dagster_slurm_components.pipes.stuck import StuckTimer
from dagster_slurm_components.pipes.target import Target
from dagster_slurm_components.spec.resolve import ResolvedScript

_LISTEN = 1.0
_TAIL = 8 * 1024
"""Bytes of a stream that are read again for the last lines of a failure."""
_CANCEL_ANSWER = 120.0


class CancelledByCallerError(Exception):
    """Whoever submitted the job has cancelled it."""


@dataclass
class Progress:
    """What is known of a call from outside its thread.

    Attributes:
        handle: The newest job; none before the first submission.
        observation: What was last heard of it.
        cancel: Set when its caller wants it cancelled.
    """

    handle: JobHandle | None = None
    observation: Observation = field(default_factory=Observation)
    cancel: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Followed:
    """A job that was followed to its end.

    Attributes:
        handle: The job.
        ended: How it ended.
        stderr: The last lines of its stderr.
        shown: What a person has seen of its output.
    """

    handle: JobHandle
    ended: Ended
    stderr: str
    shown: OutputPosition


@dataclass(frozen=True)
class AttemptRun:
    """One attempt.

    Attributes:
        step: The step.
        resolved: The script.
        place: Where it runs; its calls wait for a lost host.
        parking: How to wait for a host that can't be reached.
        guard: Whether this process still speaks for its run.
        claim: Which attempt it is, and since when it is ours.
        progress: Where the caller sees how it goes.
    """

    step: Step
    resolved: ResolvedScript
    place: Target
    parking: Parking
    guard: Guard
    claim: Claim
    progress: Progress

    def run(self, spec: JobSpec, request: LeaseRequest, reader: RunDirectoryMessageReader) -> Followed:
        """Submit the job and follow it.

        Raises:
            TakenError: Somebody else's job is there.
            SubmitRejectedError: The scheduler refused it.
            StuckError: It would wait for ever, and was cancelled.
            HostError: The host refuses us.
        """
        info = self.step.context.log.info
        handle = submit(
            self.place.satellite,
            self.place.scheduler,
            spec,
            self.place.workdir,
            claim=request,
            tell=info,
            sleep=self.guard.pause,
        )
        how = "taken up again" if self.claim.adopted and handle.outcome != "submitted" else handle.outcome
        self.progress.handle = handle
        tag_job(self.step, handle.job_id)
        tell(
            self.step,
            f"Job {handle.job_id} {how} on {self.place.satellite.host.name} "
            f"(profile {self.resolved.profile.name}), run directory {handle.run_dir}",
            {"job/id": handle.job_id, "job/run_directory": handle.run_dir},
        )
        return self._follow(handle, reader)

    def _follow(self, handle: JobHandle, reader: RunDirectoryMessageReader) -> Followed:
        shown = self.claim.shown
        begins = {name: max(0, shown.offsets.get(name, 0) - _TAIL) for name in (STDOUT, STDERR)}
        watch = self.place.watcher.watch(handle, offsets=begins, inodes=shown.inodes, epoch=self.claim.epoch)
        reader.skip(shown.offsets.get(MESSAGES, 0))
        log = self.step.context.log
        follower = Follower(watch, reader, log, heal=self.parking.heal, seen=shown.offsets)
        try:
            ended = self._to_its_end(handle, watch, follower)
        except SupervisionLostError as lost:
            log.warning(f"{lost} This process leaves job {handle.job_id}.")
            if lost.cancelled or self.progress.cancel.is_set():
                self._cancel(handle, follower)
            raise
        except StoppedError:
            wanted = self.progress.cancel.is_set() or self.guard.terminated
            if wanted or self.resolved.profile.profile.on_shutdown == "cancel":
                self._cancel(handle, follower)
            else:
                self._leave(handle, watch, follower)
            raise
        finally:
            watch.close()
        return Followed(handle, ended, follower.stderr_tail, self._shown(watch, follower))

    def _to_its_end(self, handle: JobHandle, watch: Watch, follower: Follower) -> Ended:
        """Follow a job until it has ended, or this process has no say any more."""
        timer = StuckTimer(self.resolved.script.stuck)
        notice = DashboardNotice(self.resolved.profile.profile, handle.run_dir, self.step.context.log.info)
        asked = False
        while (ended := follower.follow(_LISTEN)) is None:
            self.guard.check()
            self.progress.observation = follower.observation
            watch.shown = self._shown(watch, follower)
            notice.look(watch.evidence.status)
            stuck = timer.check(follower.observation)
            if stuck is not None:
                self._cancel(handle, follower)
                raise stuck
            if self.progress.cancel.is_set():
                self._cancel(handle, follower)
                raise CancelledByCallerError
            if follower.lease_state == CANCEL_WANTED and not asked:
                asked = True  # whoever wrote that may be gone before it was done
                cancel(self.place.direct, self.place.scheduler, handle, patience=_CANCEL_ANSWER)
        self.progress.observation = ended.observation
        self.guard.check(thoroughly=True)
        return ended

    def _shown(self, watch: Watch, follower: Follower) -> OutputPosition:
        names = (MESSAGES, STDOUT, STDERR)
        return OutputPosition(
            dict(follower.shown), {name: watch.inodes[name] for name in names if name in watch.inodes}
        )

    def _cancel(self, handle: JobHandle, follower: Follower) -> None:
        """Cancel the job. Where its host can't be reached, the sensor does once it can: the lease tells of it."""
        log = self.step.context.log
        place = self.place
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
                self.progress.observation = ended.observation
                log.info(f"Job {handle.job_id} was cancelled and has ended: {ended.observation.state}.")

    def _leave(self, handle: JobHandle, watch: Watch, follower: Follower) -> None:
        """Leave the job to whoever takes it up; what was shown of it is written down."""
        shown = asdict(self._shown(watch, follower))
        renewal = LeaseRenewal(handle.run_dir, self.claim.epoch, shown)
        try:
            self.place.direct.follow([], [renewal], total=0)
        except HostError as error:
            self.step.context.log.info(
                f"What was shown of job {handle.job_id} could not be written down: {error}"
            )
        kept = self.step.run is not None and keeps_runs(self.step.instance)
        profile = self.resolved.profile.name
        self.step.context.log.info(left_job(handle.job_id, self.step.run_id, profile, kept=kept))

    def close(self, outcome: str, shown: OutputPosition) -> float:
        """Write down how the job ended, before anything of it is handed on; return when.

        Raises:
            SupervisionLostError: Somebody else has taken the job over.
        """
        leases = LeaseStore(self.place.satellite, self.place.workdir)
        run_dir = f"{self.place.workdir}/{self.claim.identity.folder}"
        now = time.time()
        if leases.change(run_dir, self.claim.epoch, ENDED, outcome=outcome, shown=shown) is None:
            raise SupervisionLostError(f"The job in {run_dir} is followed by somebody else by now.")
        return now


def environment(session: Mapping[str, str], run_dir: str) -> dict[str, str]:
    """Return the variables that this project gives a payload, beside those of the Pipes session."""
    return {**session, "DAGSTER_SLURM_MESSAGES": f"{run_dir}/messages.jsonl"}
