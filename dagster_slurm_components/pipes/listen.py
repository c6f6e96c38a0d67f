"""What a job says while it is followed: output to the step's streams, messages to Pipes, news to the log."""

import sys
import time
from logging import Logger

from dagster_slurm_components.jobs.dashboard import DashboardNotice
from dagster_slurm_components.jobs.events import (
    MESSAGES,
    STDERR,
    STDOUT,
    Changed,
    Ended,
    Event,
    HostBack,
    HostLost,
    LeaseChanged,
    Output,
    OutputSkipped,
    WatchFailed,
)
from dagster_slurm_components.jobs.lease import OutputPosition
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.output import Stream, describe
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.guard import SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader

_TAIL = 8 * 1024
"""Bytes of a stream that are read again for the last lines of a failure."""


class JobOutput:
    """The streams and messages of one job, from where a person has seen them before; with a ``label`` at each line."""

    def __init__(
        self,
        handle: JobHandle,
        reader: RunDirectoryMessageReader,
        shown: OutputPosition | None = None,
        *,
        label: str = "",
    ) -> None:
        seen = shown.offsets if shown else {}
        self.begin = {name: max(0, seen.get(name, 0) - _TAIL) for name in (STDOUT, STDERR)}
        """Where each is read from."""
        self._handle = handle
        self._reader = reader
        reader.skip(seen.get(MESSAGES, 0))
        self._streams = {
            STDOUT: Stream(lambda: sys.stdout, self.begin[STDOUT], seen.get(STDOUT, 0), label),
            STDERR: Stream(lambda: sys.stderr, self.begin[STDERR], seen.get(STDERR, 0), label),
        }
        self._outputs: dict[str, Stream | RunDirectoryMessageReader] = {**self._streams, MESSAGES: reader}

    def take(self, event: Output | OutputSkipped) -> None:
        """Show what was read, or say what was left out."""
        if isinstance(event, OutputSkipped):
            self._streams[event.name].skip(event.size, self._handle.file(event.name))
            return
        output = self._outputs[event.name]
        if event.rewound:
            output.rewind()
        output.feed(event.data)

    def finish(self, log: Logger) -> None:
        """The job has ended: hand on what was held back."""
        for output in self._outputs.values():
            output.finish()
        for complaint in self._reader.complaints:
            log.warning(complaint)
        for note in self._reader.notes:
            log.info(note)

    @property
    def offsets(self) -> dict[str, int]:
        """How many bytes a person has been shown, by file."""
        return {name: output.position for name, output in self._outputs.items()}

    @property
    def stderr_tail(self) -> str:
        """The last lines that the job wrote to stderr."""
        return self._streams[STDERR].tail


class JobListener:
    """Listens to one job."""

    def __init__(
        self, call: JobCall, claim: Claim, handle: JobHandle, reader: RunDirectoryMessageReader
    ) -> None:
        self._call = call
        self._handle = handle
        self._log = call.step.context.log
        self._output = JobOutput(handle, reader, claim.lease.shown, label=call.label)
        self._news = ""
        profile = call.resolved.profile
        self._notice = DashboardNotice(profile.profile, handle.run_dir, self._log.info)
        self._watch = call.place.watcher.watch(
            handle, offsets=self._output.begin, inodes=claim.lease.shown.inodes, epoch=claim.lease.epoch
        )
        self.lease_state = self._watch.lease_state
        call.observation = self._watch.observation

    @property
    def observation(self) -> Observation:
        """What is known of the job."""
        return self._call.observation

    @property
    def shown(self) -> OutputPosition:
        """What a person has seen by now."""
        offsets, inodes = self._output.offsets, self._watch.inodes
        return OutputPosition(offsets, {name: inodes[name] for name in offsets if name in inodes})

    @property
    def stderr_tail(self) -> str:
        """The last lines that the job wrote to stderr."""
        return self._output.stderr_tail

    def close(self) -> None:
        """Stop listening; the job goes on."""
        self._watch.close()

    def listen(self, seconds: float) -> Ended | None:
        """Show what happens within so many seconds; return the job's end, once it is there."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            event = self._watch.next(timeout=left)
            match event:
                case Output() | OutputSkipped():
                    self._output.take(event)
                case Changed(observation=observation, status=status):
                    self._call.observation = observation
                    news = describe(self._handle.job_id, observation, status)
                    if news and news != self._news and not observation.terminal:  # each thing once
                        self._news = news
                        self._log.info(news)
                case LeaseChanged(epoch=epoch, state=lease_state):
                    require_epoch(epoch, self._watch.epoch)
                    self.lease_state = lease_state
                case Ended(observation=observation):
                    self._call.observation = observation
                    self._output.finish(self._log)
                    # After the payload's own last words.
                    self._log.info(describe(self._handle.job_id, observation, event.evidence.status))
                    return event
                case _:
                    tell_host_news(event, self._call)
        self._watch.shown = self.shown
        self._notice.look(self._watch.evidence.status)
        return None


def require_epoch(found: int, ours: int | None) -> None:
    """Raise SupervisionLostError where the lease is another's."""
    if found != ours:
        raise SupervisionLostError("The job is followed by somebody else by now.")


def tell_host_news(event: Event | None, call: JobCall) -> None:
    """Tell that a host is lost, or back; raise why watching can't go on."""
    log = call.step.context.log
    match event:
        case HostLost(error=error):
            log.warning(f"{error}\nThe job goes on; this step waits for the host.")
        case HostBack(seconds=silence):
            log.info(f"The host answers again after {silence:.0f} s.")
        case WatchFailed(error=broken):
            raise broken
