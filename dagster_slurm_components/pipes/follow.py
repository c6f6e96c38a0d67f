"""Follows one job to its end: output to the step's streams, messages to Pipes, news to the log.

A step that has to leave its job before that cancels it, or leaves it in good order to whoever takes it up.
"""

import sys
import time
from dataclasses import asdict

import dagster as dg

from dagster_slurm_components.errors import HostError
from dagster_slurm_components.hosts.satellite.calls import LeaseRenewal
from dagster_slurm_components.jobs.dashboard import DashboardNotice
from dagster_slurm_components.jobs.ending import LeaseLostError, cancel, end_job
from dagster_slurm_components.jobs.events import (
    MESSAGES,
    STDERR,
    STDOUT,
    Changed,
    Ended,
    HostBack,
    HostLost,
    LeaseChanged,
    Output,
    OutputSkipped,
    WatchFailed,
)
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, OutputPosition
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.output import Stream, describe
from dagster_slurm_components.jobs.stuck import StuckTimer
from dagster_slurm_components.jobs.target import heal
from dagster_slurm_components.pipes.claim import Claim, JobCall
from dagster_slurm_components.pipes.failure import no_start
from dagster_slurm_components.pipes.guard import StoppedError, SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.records import keeps_runs, left_job

_LISTEN = 0.5
_LOOK = 1.0
_TAIL = 8 * 1024
"""Bytes of a stream that are read again for the last lines of a failure."""


class Follower:
    """Follows a job that is this process's by its claim, for as long as the guard lets it."""

    def __init__(
        self, call: JobCall, claim: Claim, handle: JobHandle, reader: RunDirectoryMessageReader
    ) -> None:
        self._call = call
        self._place = call.place
        self._guard = call.guard
        self._epoch = claim.epoch
        self._handle = handle
        self._reader = reader
        self._log = call.step.context.log
        self._profile = call.resolved.profile
        seen = claim.shown.offsets
        begin = {name: max(0, seen.get(name, 0) - _TAIL) for name in (STDOUT, STDERR)}
        reader.skip(seen.get(MESSAGES, 0))
        self._streams = {
            STDOUT: Stream(lambda: sys.stdout, begin[STDOUT], seen.get(STDOUT, 0)),
            STDERR: Stream(lambda: sys.stderr, begin[STDERR], seen.get(STDERR, 0)),
        }
        self._outputs: dict[str, Stream | RunDirectoryMessageReader] = {**self._streams, MESSAGES: reader}
        self._news = ""
        inodes = claim.shown.inodes
        self._watch = call.place.watcher.watch(handle, offsets=begin, inodes=inodes, epoch=claim.epoch)
        self._lease_state = self._watch.lease_state
        call.observation = self._watch.observation

    def run(self) -> Ended:
        """Return when the job has ended and all its output was shown.

        Raises:
            Failure: It was stuck, or its caller has cancelled it.
            SupervisionLostError: This process has no say about it any more.
            StoppedError: The step was interrupted.
            HostError: It can't be watched any more, for a reason that waiting won't heal.
        """
        cancelled = self._call.cancel
        try:
            return self._to_its_end()
        except SupervisionLostError as lost:
            self._log.warning(f"{lost} This process leaves job {self._handle.job_id}.")
            if lost.cancelled or cancelled.is_set():
                self._cancel()
            raise
        except StoppedError:
            wanted = cancelled.is_set() or self._guard.terminated
            if wanted or self._profile.profile.on_shutdown == "cancel":
                self._cancel()
            else:
                self._leave()
            raise
        finally:
            self._watch.close()

    @property
    def shown(self) -> OutputPosition:
        """What a person has seen by now."""
        offsets = {name: output.position for name, output in self._outputs.items()}
        inodes = self._watch.inodes
        return OutputPosition(offsets, {name: inodes[name] for name in offsets if name in inodes})

    @property
    def stderr_tail(self) -> str:
        """The last lines that the job wrote to stderr."""
        return self._streams[STDERR].tail

    def _to_its_end(self) -> Ended:
        call, handle, watch = self._call, self._handle, self._watch
        timer = StuckTimer(call.resolved.script.stuck)
        notice = DashboardNotice(self._profile.profile, handle.run_dir, self._log.info)
        asked = False
        while (ended := self._listen(_LOOK)) is None:
            self._guard.check()
            watch.shown = self.shown
            notice.look(watch.evidence.status)
            stuck = timer.check(call.observation)
            if stuck is not None:
                self._cancel()
                raise no_start(str(stuck), stuck.reason.option, call.resolved) from stuck
            if call.cancel.is_set():
                self._cancel()
                text = f"Job {handle.job_id} was cancelled by the code that submitted it."
                raise dg.Failure(text, allow_retries=False)
            if self._lease_state == CANCEL_WANTED and not asked:
                asked = True  # whoever wrote that may be gone before it was done
                cancel(self._place.direct, handle)
                self._place.watcher.cancelled(handle)
        call.observation = ended.observation
        self._guard.check(thoroughly=True)
        return ended

    def _listen(self, seconds: float) -> Ended | None:
        """Show what happens within so many seconds; return the job's end, once it is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # A bounded wait, so that signals reach a main thread that follows a job.
            event = self._watch.next(timeout=_LISTEN)
            match event:
                case Output(name=name, data=data, rewound=rewound):
                    output = self._outputs[name]
                    if rewound:
                        output.rewind()
                    output.feed(data)
                case OutputSkipped(name=name, size=size):
                    self._streams[name].skip(size, self._handle.file(name))
                case Changed(observation=observation, status=status):
                    self._call.observation = observation
                    news = describe(self._handle.job_id, observation, status)
                    if news and news != self._news:  # each thing once
                        self._news = news
                        self._log.info(news)
                case HostLost(error=error):
                    advice = heal(self._profile)
                    self._log.warning(f"{error}\nThe job goes on; this step waits for the host. {advice}")
                case HostBack(seconds=silence):
                    self._log.info(f"The host answers again after {silence:.0f} s.")
                case LeaseChanged(epoch=epoch, state=lease_state):
                    if epoch != self._epoch:
                        raise SupervisionLostError("The job is followed by somebody else by now.")
                    self._lease_state = lease_state
                case WatchFailed(error=broken):
                    raise broken
                case Ended():
                    self._finish()
                    return event
        return None

    def _finish(self) -> None:
        for output in self._outputs.values():
            output.finish()
        for complaint in self._reader.complaints:
            self._log.warning(complaint)
        for note in self._reader.notes:
            self._log.info(note)

    def _cancel(self) -> None:
        """Cancel the job. Where its host can't be reached, the sensor does once it can: the lease tells of it."""
        log, job_id = self._log, self._handle.job_id
        try:
            ended = end_job(self._place.direct, self._handle, self._epoch, self._listen)
        except LeaseLostError as error:
            log.warning(f"{error} It is left to them.")
        except HostError as error:
            log.error(
                f"Job {job_id} could not be cancelled, and may run on: {error} Once the host answers, the sensor"
                f" `slurm_jobs` ends the jobs of cancelled runs; `dg-slurm jobs cancel {job_id}` ends this one."
            )
        else:
            if ended is None:
                log.warning(f"Job {job_id} was cancelled, but its end is not confirmed yet.")
            else:
                self._call.observation = ended.observation
                log.info(f"Job {job_id} was cancelled and has ended: {ended.observation.state}.")

    def _leave(self) -> None:
        """Leave the job to whoever takes it up; what was shown of it is written down."""
        step, handle = self._call.step, self._handle
        renewal = LeaseRenewal(handle.run_dir, self._epoch, asdict(self.shown))
        try:
            self._place.direct.satellite.follow([], [renewal], total=0)
        except HostError as error:
            self._log.info(f"What was shown of job {handle.job_id} could not be written down: {error}")
        kept = step.run is not None and keeps_runs(step.instance)
        self._log.info(left_job(handle.job_id, step.run_id, self._profile.name, kept=kept))
