"""One attempt of a step: submits its job, or takes up the one there is, and follows it to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.parked import Parking
from dagster_slurm_components.jobs.cancel import cancel
from dagster_slurm_components.jobs.events import STDERR, STDOUT, Ended
from dagster_slurm_components.jobs.model import JobHandle, JobSpec
from dagster_slurm_components.jobs.shown import Notebook, Shown, read_shown
from dagster_slurm_components.jobs.submit import submit
from dagster_slurm_components.pipes.dashboard import DashboardNotice
from dagster_slurm_components.pipes.follow import Follower
from dagster_slurm_components.pipes.guard import Guard, SupervisionLostError
from dagster_slurm_components.pipes.identity import Context
from dagster_slurm_components.pipes.interrupts import INTERRUPTS, Background, shielded
from dagster_slurm_components.pipes.launches import Launch, record_end
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.stuck import StuckTimer
from dagster_slurm_components.pipes.target import Target
from dagster_slurm_components.spec.resolve import ResolvedScript

_CANCEL_ANSWER = 120.0
_CANCEL_END = 90.0
_TERM_GRACE = 10.0
_LISTEN = 1.0
_TAIL = 8 * 1024
"""Bytes of a stream that are read again for the last lines of a failure."""


class _StoppedError(Exception):
    """The submission was called off before it was made."""


@dataclass(frozen=True)
class Followed:
    """A job that was followed to its end.

    Attributes:
        handle: The job.
        ended: How it ended.
        stderr: The last lines of its stderr.
        delivered: Call it when the results are in Dagster's hands.
    """

    handle: JobHandle
    ended: Ended
    stderr: str
    delivered: Callable[[], None]


@dataclass(frozen=True)
class Attempt:
    """One attempt.

    Attributes:
        context: Dagster's context of the step.
        resolved: The script.
        place: Where it runs.
        parking: How to wait for a host that can't be reached.
        guard: Whether this process still speaks for its run.
        launch: What was written down of it.
        adopted: Whether the job may exist already.
    """

    context: Context
    resolved: ResolvedScript
    place: Target
    parking: Parking
    guard: Guard
    launch: Launch
    adopted: bool

    def run(self, spec: JobSpec, reader: RunDirectoryMessageReader) -> Followed:
        """Submit the job and follow it.

        Raises:
            SubmitRejectedError: The scheduler refused it.
            StuckError: It would wait for ever, and was cancelled.
            HostError: The host refuses us.
        """
        handle = self._submit(spec, reader)
        how = "taken up again" if self.adopted and handle.outcome != "submitted" else handle.outcome
        self.context.log.info(
            f"Job {handle.job_id} {how} on {self.place.satellite.host.name} "
            f"(profile {self.resolved.profile.name}), run directory {handle.run_dir}"
        )
        shown = read_shown(self.place.satellite, handle.run_dir) if self.adopted else Shown()
        return self._follow(handle, reader, shown)

    def _submit(self, spec: JobSpec, reader: RunDirectoryMessageReader) -> JobHandle:
        """Submit in a thread: an interrupt in the middle must not leave a job that nobody knows of."""
        stop = threading.Event()

        def sleep(seconds: float) -> None:
            if stop.wait(seconds):
                raise _StoppedError
            self.guard.check()

        def work() -> JobHandle:
            place = self.place.patient(replace(self.parking, sleep=sleep))
            tell = self.context.log.info
            return submit(place.satellite, place.scheduler, spec, place.workdir, tell=tell, sleep=sleep)

        submission = Background(work, name="dagster-slurm-submit")
        try:
            return submission.result()
        except INTERRUPTS:
            stop.set()
            self._call_off(submission, reader)
            raise

    def _call_off(self, submission: Background[JobHandle], reader: RunDirectoryMessageReader) -> None:
        """Let an interrupted submission come to an end; cancel its job if the interrupt means that."""
        try:
            handle = submission.settled()
        except (_StoppedError, DagsterSlurmError) as error:
            self.context.log.info(f"The submission was interrupted. {error}")
            return
        if not self._cancel_wanted():
            self.context.log.info(f"This step ends; job {handle.job_id} goes on.")
            return
        watch = self.place.watcher.watch(handle)
        try:
            follower = Follower(watch, reader, self.context.log, heal="")
            shielded(lambda: self._cancel(handle, follower), name="dagster-slurm-cancel")
        finally:
            watch.close()

    def _follow(self, handle: JobHandle, reader: RunDirectoryMessageReader, shown: Shown) -> Followed:
        begins = {name: max(0, shown.offsets.get(name, 0) - _TAIL) for name in (STDOUT, STDERR)}
        watch = self.place.watcher.watch(handle, offsets=begins, inodes=shown.inodes)
        reader.skip(shown.offsets.get("messages.jsonl", 0))
        follower = Follower(watch, reader, self.context.log, heal=self.parking.heal, seen=shown.offsets)
        notebook = Notebook(self.place.direct, watch, self.context.run.run_id)
        timer = StuckTimer(self.resolved.script.stuck)
        notice = DashboardNotice(self.resolved.profile.profile, handle.run_dir, self.context.log.info)
        try:
            while (ended := follower.follow(_LISTEN)) is None:
                self.guard.check()
                notebook.keep(follower.shown)
                notice.look(watch.evidence.status)
                stuck = timer.check(follower.observation)
                if stuck is not None:
                    shielded(lambda: self._cancel(handle, follower), name="dagster-slurm-cancel")
                    raise stuck
            self.guard.check(thoroughly=True)
        except SupervisionLostError as lost:
            self.context.log.warning(f"{lost} This process leaves job {handle.job_id}.")
            if lost.cancelled:
                shielded(lambda: self._cancel(handle, follower), name="dagster-slurm-cancel")
            raise
        except INTERRUPTS:
            if self._cancel_wanted():
                shielded(lambda: self._cancel(handle, follower), name="dagster-slurm-cancel")
            else:
                notebook.keep(follower.shown, now=True)
                self.context.log.info(f"This step ends; job {handle.job_id} goes on.")
            raise
        finally:
            watch.close()

        def delivered() -> None:
            notebook.keep(follower.shown, now=True, delivered=True)

        return Followed(handle, ended, follower.stderr_tail, delivered)

    def _cancel_wanted(self) -> bool:
        """Return whether an interrupt means the job too: the run was terminated, or the profile says so.

        Any other end of the process (a redeployment, a closed laptop) leaves the job alone.
        """
        run = self.context.instance.get_run_by_id(self.context.run.run_id)
        terminated = run is not None and run.status in (
            dg.DagsterRunStatus.CANCELING,
            dg.DagsterRunStatus.CANCELED,
        )
        return terminated or self.resolved.profile.profile.on_shutdown == "cancel"

    def _cancel(self, handle: JobHandle, follower: Follower) -> None:
        record_end(self.context.instance, self.context.run, self.launch.identity, "cancelled in Dagster")
        satellite, scheduler = self.place.direct, self.place.scheduler
        cancel(satellite, scheduler, handle, patience=_CANCEL_ANSWER)
        self.place.watcher.hurry()
        ended = follower.follow(_TERM_GRACE)
        if ended is None:
            cancel(satellite, scheduler, handle, patience=_CANCEL_ANSWER, force=True)
            ended = follower.follow(_CANCEL_END)
        if ended is None:
            self.context.log.warning(f"Job {handle.job_id} was cancelled, but its end is not confirmed yet.")
        else:
            self.context.log.info(
                f"Job {handle.job_id} was cancelled and has ended: {ended.observation.state}."
            )


def environment(session: Mapping[str, str], run_dir: str) -> dict[str, str]:
    """Return the variables that this project gives a payload, beside those of the Pipes session."""
    return {**session, "DAGSTER_SLURM_MESSAGES": f"{run_dir}/messages.jsonl"}
