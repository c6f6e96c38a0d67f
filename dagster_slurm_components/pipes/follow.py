"""Follows one job in the step's own thread: output to the step's streams, messages to Pipes, news to the log."""

from __future__ import annotations

import codecs
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from logging import Logger
from typing import TextIO

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
    Watch,
    WatchFailed,
)
from dagster_slurm_components.jobs.reconcile import SUBMITTED, Observation
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.pipes.guard import SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.states import Phase, state

_LISTEN = 0.5
_TAIL_LINES = 20
_TAIL_BYTES = 8 * 1024


class Follower:
    """Turns a watch's events into what a person sees in Dagster.

    Args:
        watch: The job.
        reader: Where the payload's messages go.
        log: Dagster's logger of the step.
        heal: What to type when the host asks for a new login.
        seen: Bytes of stdout and stderr that were shown before; the watch begins a little earlier.
    """

    def __init__(
        self,
        watch: Watch,
        reader: RunDirectoryMessageReader,
        log: Logger,
        *,
        heal: str,
        seen: Mapping[str, int] | None = None,
    ) -> None:
        self._watch = watch
        self._reader = reader
        self._log = log
        self._heal = heal
        seen = seen or {}
        self._streams = {
            STDOUT: _Stream(lambda: sys.stdout, watch.offsets.get(STDOUT, 0), seen.get(STDOUT, 0)),
            STDERR: _Stream(lambda: sys.stderr, watch.offsets.get(STDERR, 0), seen.get(STDERR, 0)),
        }
        self._said = ""
        self.observation = watch.observation
        """The newest that was heard of the job."""
        self.lease_state = watch.lease_state
        """The state of its lease."""

    def follow(self, seconds: float = math.inf) -> Ended | None:
        """Return when the job has ended and all its output was shown, or nothing after so many seconds.

        Raises:
            SupervisionLostError: Somebody else has taken the job over.
            HostError: The job can't be watched any more, for a reason that waiting won't heal.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # A bounded wait, so that signals reach a main thread that follows a job.
            event = self._watch.next(timeout=_LISTEN)
            match event:
                case Output(name=name, data=data, rewound=rewound):
                    self._show(name, data, rewound)
                case OutputSkipped(name=name, size=size):
                    self._streams[name].skip(size, self._watch.handle.file(name))
                case Changed(observation=observation, status=status):
                    self.observation = observation
                    self._tell(observation, status)
                case HostLost(error=error):
                    self._log.warning(f"{error}\nThe job goes on; this step waits for the host. {self._heal}")
                case HostBack(seconds=seconds):
                    self._log.info(f"The host answers again after {seconds:.0f} s.")
                case LeaseChanged(epoch=epoch, state=lease_state):
                    if epoch != self._watch.epoch:
                        raise SupervisionLostError("The job is followed by somebody else by now.")
                    self.lease_state = lease_state
                case WatchFailed(error=broken):
                    raise broken
                case Ended():
                    self._finish()
                    return event
        return None

    @property
    def shown(self) -> Mapping[str, int]:
        """Bytes of each streamed file that a person has seen by now."""
        streams = {name: stream.position for name, stream in self._streams.items()}
        return {MESSAGES: self._reader.position, **streams}

    @property
    def stderr_tail(self) -> str:
        """The last lines that the job wrote to stderr."""
        return self._streams[STDERR].tail

    def _show(self, name: str, data: bytes, rewound: bool) -> None:
        if name == MESSAGES:
            if rewound:
                self._reader.rewind()
            self._reader.feed(data)
        else:
            if rewound:
                self._streams[name].rewind()
            self._streams[name].write(data)

    def _tell(self, observation: Observation, status: StatusRecord | None) -> None:
        """Log what changed, each thing once."""
        text = describe(self._watch.handle.job_id, observation, status)
        if text and text != self._said:
            self._said = text
            self._log.info(text)

    def _finish(self) -> None:
        for stream in self._streams.values():
            stream.finish()
        self._reader.finish()
        for complaint in self._reader.complaints:
            self._log.warning(complaint)
        for note in self._reader.notes:
            self._log.info(note)


def describe(job_id: str, observation: Observation, status: StatusRecord | None) -> str:
    """Return what a person wants to read about a change in a job's life."""
    again = f" (started anew, {observation.restarts}. time)" if observation.restarts else ""
    if observation.state == SUBMITTED:
        return ""
    if observation.phase is Phase.RUNNING:
        where = f" on {status.get('nodes') or status.host}" if status else ""
        return f"Job {job_id} runs{where}{again}."
    if observation.phase is Phase.WAITING:
        why = ""
        if observation.reason:
            reason = explain(observation.reason)
            why = f", reason {observation.reason}: {reason.text}"
        expected = ""
        if observation.starts_at:
            expected = " Expected start: " + time.strftime(
                "%Y-%m-%d %H:%M:%S %Z", time.localtime(observation.starts_at)
            )
        return f"Job {job_id} is {observation.state}{again}{why}{expected}"
    if observation.phase is Phase.ENDING:
        return f"Job {job_id} is {observation.state}: {state(observation.state).explanation}"
    return f"Job {job_id} ended: {observation.state}{again}."


class _Stream:
    """One output stream of the job: decoded wherever it is cut, with its last lines kept.

    Args:
        target: Where it is shown.
        begin: The offset of the first bytes that will come.
        seen: The offset up to which it was shown before; what comes below it is kept only.
    """

    def __init__(self, target: Callable[[], TextIO], begin: int = 0, seen: int = 0) -> None:
        self._target = target
        self.position = begin
        self._silent = max(0, seen - begin)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._rest = ""

    def write(self, data: bytes) -> None:
        """Show bytes of the stream."""
        self.position += len(data)
        old, new = data[: self._silent], data[self._silent :]
        self._silent -= len(old)
        self._keep(self._decoder.decode(old))
        self._put(self._decoder.decode(new))

    def rewind(self) -> None:
        """Another file has taken the place of this one."""
        self.position = self._silent = 0

    def skip(self, size: int, path: str) -> None:
        """Say that bytes were left out."""
        self.finish()
        self._decoder.reset()
        self.position += size
        self._put(f"\n[{size} bytes were left out here; all of it is in {path}]\n")

    def finish(self) -> None:
        """Show what was held back of a character that never came whole."""
        self._put(self._decoder.decode(b"", final=True))

    @property
    def tail(self) -> str:
        """The last lines, at most some kilobytes."""
        return "\n".join([*self._tail, *([self._rest] if self._rest else [])])[-_TAIL_BYTES:]

    def _put(self, text: str) -> None:
        if not text:
            return
        target = self._target()  # looked up each time: Dagster replaces the streams for a step
        target.write(text)
        target.flush()
        self._keep(text)

    def _keep(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-_TAIL_BYTES:]
        self._tail.extend(line[-_TAIL_BYTES:] for line in lines)
