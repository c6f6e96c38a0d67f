"""Follows one job: output to the step's streams, messages to Pipes, news to the log."""

from __future__ import annotations

import math
import sys
import time
from logging import Logger

from dagster_slurm_components.jobs.events import (
    MESSAGES,
    STDERR,
    STDOUT,
    Back,
    Broken,
    Changed,
    Ended,
    LeaseChanged,
    Silent,
    Skipped,
    Text,
    Watch,
)
from dagster_slurm_components.jobs.lease import Shown
from dagster_slurm_components.jobs.output import Stream, describe
from dagster_slurm_components.pipes.guard import SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader

_LISTEN = 0.5


class Follower:
    """Turns a watch's events into what a person sees in Dagster.

    Of what was ``shown`` before, the last of stdout and stderr is watched once more, for the tail of a failure. With
    ``heal`` a person is told what to type when the host asks for a new login.
    """

    def __init__(
        self, watch: Watch, reader: RunDirectoryMessageReader, log: Logger, *, heal: str, shown: Shown
    ) -> None:
        self._watch = watch
        self._reader = reader
        self._log = log
        self._heal = heal
        seen, begin = shown.offsets, watch.offsets
        reader.skip(seen.get(MESSAGES, 0))
        self._streams = {
            STDOUT: Stream(lambda: sys.stdout, begin.get(STDOUT, 0), seen.get(STDOUT, 0)),
            STDERR: Stream(lambda: sys.stderr, begin.get(STDERR, 0), seen.get(STDERR, 0)),
        }
        self._news = ""
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
                case Text(name=name, data=data, rewound=rewound):
                    self._show(name, data, rewound)
                case Skipped(name=name, size=size):
                    self._streams[name].skip(size, self._watch.handle.file(name))
                case Changed(observation=observation, status=status):
                    self.observation = observation
                    news = describe(self._watch.handle.job_id, observation, status)
                    if news and news != self._news:  # each thing once
                        self._news = news
                        self._log.info(news)
                case Silent(error=error):
                    self._log.warning(f"{error}\nThe job goes on; this step waits for the host. {self._heal}")
                case Back(seconds=silence):
                    self._log.info(f"The host answers again after {silence:.0f} s.")
                case LeaseChanged(epoch=epoch, state=lease_state):
                    if epoch != self._watch.epoch:
                        raise SupervisionLostError("The job is followed by somebody else by now.")
                    self.lease_state = lease_state
                case Broken(error=broken):
                    raise broken
                case Ended():
                    self._finish()
                    return event
        return None

    @property
    def shown(self) -> Shown:
        """What a person has seen by now."""
        streams = {name: stream.position for name, stream in self._streams.items()}
        offsets = {MESSAGES: self._reader.position, **streams}
        inodes = self._watch.inodes
        return Shown(offsets, {name: inodes[name] for name in offsets if name in inodes})

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

    def _finish(self) -> None:
        for stream in self._streams.values():
            stream.finish()
        self._reader.finish()
        for complaint in self._reader.complaints:
            self._log.warning(complaint)
        for note in self._reader.notes:
            self._log.info(note)
