"""What a job says while it is followed: output to the step's streams, messages to Pipes, news to the log."""

import queue
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from logging import Logger
from typing import Any

from dagster_slurm_components.jobs.budgets import budgets_of
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
    Watch,
    WatchFailed,
    next_event,
)
from dagster_slurm_components.jobs.idle import IdleNews, IdleTimer
from dagster_slurm_components.jobs.into import ready_command
from dagster_slurm_components.jobs.lease import FOLLOWING, OutputPosition
from dagster_slurm_components.jobs.live import LiveNotice
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.outcome import end_word
from dagster_slurm_components.jobs.output import Stream, describe
from dagster_slurm_components.jobs.progress import Progress
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.jobs.timeline import COMPLETED, Span
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.guard import SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.units import parse_time_limit

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
        self.reader = reader
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
        for complaint in self.reader.complaints:
            log.warning(complaint)
        for note in self.reader.notes:
            log.info(note)

    @property
    def offsets(self) -> dict[str, int]:
        """How many bytes a person has been shown, by file."""
        return {name: output.position for name, output in self._outputs.items()}

    @property
    def stderr_tail(self) -> str:
        """The last lines that the job wrote to stderr."""
        return self._streams[STDERR].tail


class Listener(ABC):
    """Who hears what a job, or an array of them, says.

    Attributes:
        lease: The watch that renews the job's lease.
        lease_state: The state of the lease, by the last event that told of it.
        ended: The end, once it is there.
        cancelled: Why elements of an array were cancelled one by one, by their tasks' ids.
    """

    lease: Watch

    def __init__(self, call: JobCall, handle: JobHandle) -> None:
        self._call = call
        self._handle = handle
        self._log = call.step.context.log
        self._events: queue.SimpleQueue[tuple[Watch, Event]] = queue.SimpleQueue()
        self._watches: dict[str, Watch] = {}
        self._news = ""
        self._started: float | None = None
        self._finished: float | None = None
        self._ends: Counter[str] = Counter()
        self.lease_state = FOLLOWING
        self.ended: Ended | None = None
        self.cancelled: dict[str, str] = {}

    @property
    @abstractmethod
    def observation(self) -> Observation:
        """What is known of the job; of an array, of that element that says most about what it waits for."""

    @property
    @abstractmethod
    def shown(self) -> OutputPosition:
        """What a person has seen by now."""

    @property
    def span(self) -> Span:
        """The job over time, as far as it was followed; of an array from the first element's start to the last end."""
        bad = [end for end, _ in self._ends.most_common() if end != COMPLETED]
        end = next(iter(bad), COMPLETED) if self.ended else self.observation.state
        ended = (self._finished if self.ended else None) or time.time()
        return Span(self._handle.job_id, self._title, self._handle.submitted, self._started, ended, end)

    @property
    def _title(self) -> str:
        identity = self._call.identity
        call = f"(call {identity.call})" if identity.call else None
        return " ".join(filter(None, (identity.step, identity.partition, call)))

    def _note(self, status: StatusRecord | None, ended: Ended | None = None) -> None:
        """Keep the times that the job, or an element of it, wrote down; one that was killed wrote no end."""
        if status and status.started:
            self._started = min(self._started or status.started, status.started)
        if ended is not None:
            finished = (status.ended if status else None) or time.time()
            self._finished = max(self._finished or finished, finished)
            self._ends[end_word(ended)] += 1

    @abstractmethod
    def idle_news(self) -> IdleNews | None:
        """What is to be told of a payload that does nothing; of an array of one element at a time."""

    @abstractmethod
    def _hear(self, watch: Watch, event: Event) -> None:
        """Take an event about the job itself."""

    @abstractmethod
    def _look_around(self) -> None:
        """Do what is to be done from time to time."""

    def _watch(self, handle: JobHandle, **how: Any) -> Watch:
        """Begin to watch a job; its events come into the one queue."""
        watch = self._call.place.watcher.watch(handle, told=self._events, **how)
        self._watches[handle.run_dir] = watch
        return watch

    def close(self) -> None:
        """Stop listening; the jobs go on."""
        for watch in self._watches.values():
            watch.close()

    def listen(self, seconds: float) -> Ended | None:
        """Show what happens within so many seconds; return the end, once it is there.

        Raises:
            SupervisionLostError: The lease is another's.
            HostError: Watching can't go on.
        """
        deadline = time.monotonic() + seconds
        while self.ended is None and (left := deadline - time.monotonic()) > 0:
            told = next_event(self._events, left)
            if told is None:
                break
            watch, event = told
            match event:
                case LeaseChanged(epoch=epoch, state=lease_state):
                    if epoch != self.lease.epoch:
                        raise SupervisionLostError("The job is followed by somebody else by now.")
                    self.lease_state = lease_state
                case WatchFailed(error=error):
                    raise error
                case HostLost(error=lost) if (
                    watch is self.lease
                ):  # each watch tells, and one of them is enough
                    self._log.warning(f"{lost}\nThe job goes on; this step waits for the host.")
                case HostBack(seconds=silence) if watch is self.lease:
                    self._log.info(f"The host answers again after {silence:.0f} s.")
                case _:
                    self._hear(watch, event)
        self.lease.shown = self.shown
        self._look_around()
        return self.ended

    def _described(self, observation: Observation, status: StatusRecord | None = None) -> str:
        """Say what is known of the job; of one that waits for its account's budget, what is left of that, too."""
        said = describe(self._handle.job_id, observation, status)
        if not (observation.phase is Phase.WAITING and explain(observation.reason or "").budget):
            return said
        left = budgets_of(self._call.place, self._call.resolved.script.resources.account)
        return " ".join([said, *(f"{budget.words}." for budget in left)])

    def _tell(self, news: str) -> None:
        """Tell each thing once."""
        if news and news != self._news:
            self._news = news
            self._log.info(news)


class JobListener(Listener):
    """Listens to one job."""

    def __init__(
        self, call: JobCall, claim: Claim, handle: JobHandle, reader: RunDirectoryMessageReader
    ) -> None:
        super().__init__(call, handle)
        shown = claim.lease.shown
        self.output = JobOutput(handle, reader, shown, label=call.label)
        self._notice = DashboardNotice(call.resolved.profile, handle, self._log.info)
        self._way_in = f" A shell in it: {ready_command('shell', handle, call.resolved.profile.name)}"
        self.lease = self._watch(
            handle, offsets=self.output.begin, inodes=shown.inodes, epoch=claim.lease.epoch
        )
        self._live, self._progress = LiveNotice(self._log.info), Progress()
        asked, slurm = claim.lease.note.changed, call.resolved.profile.profile.scheduler == "slurm"
        limit = asked.get("time") or call.resolved.script.resources.time
        self._limit = parse_time_limit(limit) if limit and slurm else None
        self._idle = IdleTimer(call.resolved.script.idle, self.lease)
        call.observation = self.lease.observation

    @property
    def observation(self) -> Observation:
        """What is known of the job."""
        return self._call.observation

    @property
    def shown(self) -> OutputPosition:
        """What a person has seen by now."""
        offsets, inodes = self.output.offsets, self.lease.inodes
        return OutputPosition(offsets, {name: inodes[name] for name in offsets if name in inodes})

    def _hear(self, watch: Watch, event: Event) -> None:
        match event:
            case Output():
                self.output.take(event)
                self._progress.feed(event, time.monotonic())
            case OutputSkipped():
                self.output.take(event)
            case Changed(observation=observation, status=status):
                self._call.observation = observation
                self._note(status)
                if not observation.terminal:
                    said = self._described(observation, status)
                    self._tell(said + self._way_in if observation.phase is Phase.RUNNING else said)
            case Ended(observation=observation):
                self.ended, self._call.observation = event, observation
                self._note(event.evidence.status, event)
                self.output.finish(self._log)
                # After the payload's own last words.
                self._log.info(describe(self._handle.job_id, observation, event.evidence.status))

    def _look_around(self) -> None:
        if self.ended is None:
            status, now = self.lease.evidence.status, time.monotonic()
            self._notice.look(status)
            began = status.started if status else None
            left = began + self._limit - time.time() if began and self._limit else None
            self._live.look(self.lease, self._progress.in_words(now, left))
            if warning := self._progress.warning(now, left):
                self._log.warning(f"Job {self._handle.job_id} won't be done in time: {warning}")

    def idle_news(self) -> IdleNews | None:
        """What is to be told of a payload that does nothing."""
        return self._idle.check()
