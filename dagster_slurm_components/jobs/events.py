"""What a watcher tells whoever follows a job, and the state it keeps of each job."""

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead
from dagster_slurm_components.jobs.lease import FOLLOWING, OutputPosition
from dagster_slurm_components.jobs.meter import Meter
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.outputs import MADE, Made, parse_made
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.status import STATUS, StatusRecord, parse_status
from dagster_slurm_components.jobs.usage import NodeUsage
from dagster_slurm_components.slurm.outcome import last_words
from dagster_slurm_components.slurm.states import Phase, state

NEWS = "news"
"""The file of an array's run directory that gets the number of each element as it begins and ends: a hint."""
MESSAGES, STDOUT, STDERR = "messages.jsonl", "stdout.log", "stderr.log"
"""The files of a run directory that are streamed back while the job runs."""

_MAX_LAG = 64 * 1024 * 1024
TAIL = 8 * 1024
LAG = 1.0
"""Seconds after a job's end within which Slurm seldom knows of it (slurmdbd: 0.3 to 1.1 s on Slurm 22.05)."""
_KEPT = 1024 * 1024
"""A stream that lies further behind than the one is followed again from the other before its end: a step must not
go on printing for an hour after its job. Messages are never left out."""


@dataclass(frozen=True)
class Output:
    """New bytes of a streamed file; ``rewound`` when the file began anew, as after a requeue."""

    name: str
    data: bytes
    rewound: bool = False


@dataclass(frozen=True)
class OutputSkipped:
    """So many bytes of a stream were left out: the job writes faster than the connection carries."""

    name: str
    size: int


@dataclass(frozen=True)
class Changed:
    """Something about the job changed."""

    observation: Observation
    status: StatusRecord | None


@dataclass(frozen=True)
class HostLost:
    """The host can't be reached; the job goes on and nothing is decided."""

    error: HostUnreachableError


@dataclass(frozen=True)
class HostBack:
    """The host answers again, after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Ended:
    """The job has ended for good and all its output was delivered.

    Attributes:
        usage: What it used on each of its nodes.
        made: What it made of its outputs.
    """

    observation: Observation
    evidence: Evidence
    usage: tuple[NodeUsage, ...] = ()
    made: tuple[Made, ...] = ()


@dataclass(frozen=True)
class LeaseChanged:
    """Somebody changed the job's lease: took the job over (the epoch grew), or wants it cancelled."""

    epoch: int
    state: str


@dataclass(frozen=True)
class WatchFailed:
    """Watching can't go on, for a reason that waiting won't heal: the host's no, or a fault of ours (D9)."""

    error: Exception


Event = Output | OutputSkipped | Changed | HostLost | HostBack | Ended | LeaseChanged | WatchFailed


class Part(Enum):
    """What of a job is followed."""

    JOB = "job"
    LEASE = "lease"
    """Its lease alone: of an array, whose elements are followed."""
    ELEMENT = "element"
    """A job that ends as soon as it is known how; of a thousand elements Slurm's accounting is not asked one by one."""


@dataclass
class Watch:
    """One job as the watcher follows it: ask it for its events.

    With an ``epoch`` the watcher renews the job's lease as it reads, and keeps there what a person has ``shown``.
    Events go to the queue ``told``, which many may share: so one thread follows many jobs. A job that is about to
    start, by all that is known of its like, is looked at ``eager``-ly.
    """

    handle: JobHandle
    epoch: int | None = None
    part: Part = Part.JOB
    told: "queue.SimpleQueue[tuple[Watch, Event]]" = field(default_factory=queue.SimpleQueue)
    offsets: dict[str, int] = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)
    shown: OutputPosition | None = None
    shown_written: OutputPosition | None = None
    renew_at: float = 0.0
    lease_state: str = FOLLOWING
    observation: Observation = field(default_factory=Observation)
    evidence: Evidence = field(default_factory=Evidence)
    meter: Meter = field(default_factory=Meter)
    judged: Evidence | None = None
    status_text: bytes = b""
    stderr_end: bytes = b""
    made: bytes = b""
    began: float = 0.0
    changed_at: float = 0.0
    heard_at: float = 0.0
    read_at: float = 0.0
    accounting_since: float = 0.0
    accounting_due: float = 0.0
    accounting_tries: int = 0
    accounting_asked: float | None = None
    cancelled: bool = False
    closing_until: float | None = None
    closed: bool = False
    eager: bool = False
    delivered: int = 0
    taken: int = 0
    host_error: type[HostUnreachableError] | None = None

    def put(self, event: Event) -> None:
        """Deliver an event to whoever follows the job."""
        if isinstance(event, Output):
            self.delivered += len(event.data)
        self.told.put((self, event))

    def next(self, timeout: float) -> Event | None:
        """Return the next event, or nothing after ``timeout`` seconds."""
        told = next_event(self.told, timeout)
        return told[1] if told else None

    @property
    def backlog(self) -> int:
        """Bytes that were delivered and not taken yet: two counts, each written by one thread alone."""
        return self.delivered - self.taken

    def look_eagerly(self, eager: bool) -> None:
        """Look soon whether the job has started, and so on; or no more."""
        if eager and not self.eager:
            self.look_soon()
        self.eager = eager

    def look_soon(self) -> None:
        """Look at the job's files with the next call: something has happened."""
        self.read_at = 0.0

    def close(self) -> None:
        """Stop following; the job itself goes on."""
        self.closed = True

    @property
    def files(self) -> tuple[str, ...]:
        """The files worth a look now: a job that has not started writes none but ``status``."""
        if self.part is Part.LEASE:
            return (NEWS,)
        started = self.evidence.status is not None or self.closing_until is not None
        if not started:
            return (STATUS,)
        status = self.evidence.status
        tells = self.closing_until is not None and status is not None and status.get("outputs") is not None
        return (STATUS, MESSAGES, STDOUT, STDERR, MADE) if tells else (STATUS, MESSAGES, STDOUT, STDERR)

    @property
    def ended(self) -> Ended:
        """The end of the job, once it has ended and all was read."""
        return Ended(
            self.observation, self.evidence, self.meter.usage, parse_made(self.made, self.handle.run_dir)
        )

    def usage_reads(self, now: float) -> Sequence[tuple[int, FileRead]]:
        """Return which nodes' usage is to be read now."""
        status = self.evidence.status
        if status is None:
            return ()
        return self.meter.due(self.handle, now, self.changed_at, status.nodes)

    @property
    def wants_accounting(self) -> bool:
        """Whether the accounting is to tell how the job goes on, or, once it has ended, how, and what it used."""
        closing = self.closing_until is not None and self.part is Part.JOB
        return (closing or self.observation.wants_accounting) and not self.accounted

    @property
    def accounted(self) -> bool:
        """Whether the accounting has told how the job ended; it is not asked again."""
        row = self.evidence.accounting
        return row is not None and state(row.state).phase is Phase.TERMINAL

    @property
    def explained(self) -> bool:
        """Whether the job has ended, and no more is to be known than what it used.

        Slurm's queue does not say by whom a job was cancelled, and without cgroups not that it used too much memory.
        """
        vague = self.observation.source == "queue" and self.observation.state in ("CANCELLED", "FAILED")
        enough = not vague or self.accounted or self.cancelled or self.part is not Part.JOB
        return self.observation.terminal and enough

    def want_accounting(self, at: float) -> None:
        """The accounting is to tell of the job as it is now, from then on."""
        self.accounting_since, self.accounting_due = at - LAG, at
        self.accounting_tries, self.accounting_asked = 0, None

    def slurm_was_asked(self, queue: float) -> None:
        """The queue was asked then, with an answer or without; so perhaps was the accounting."""
        asked = None if self.accounting_asked is None else min(queue, self.accounting_asked)
        if asked != self.evidence.asked:
            self.evidence = replace(self.evidence, asked=asked)

    def take(self, name: str, file: FileData) -> bool:
        """Use what was read of one file; return whether more of it waits."""
        if not file.exists:
            return False
        offset = self.offsets.get(name, 0)
        rewound = file.size < offset or self.inodes.get(name, file.inode) != file.inode
        self.inodes[name] = file.inode
        if rewound:
            self.offsets[name] = 0
            if name == STATUS:
                self.status_text = b""
            else:
                self.put(Output(name, b"", rewound=True))
            return True
        if not file.data:
            return False
        self.offsets[name] = offset + len(file.data)
        if name == STATUS:
            self.status_text += file.data
            self.evidence = replace(self.evidence, status=parse_status(self.status_text))
        elif name == MADE:
            self.made += file.data
        else:
            self.put(Output(name, file.data))
            if name == STDERR:
                self._listen(file.data)
        left = file.size - self.offsets[name]
        if name in (STDOUT, STDERR) and left > _MAX_LAG:
            self.put(OutputSkipped(name, left - _KEPT))
            self.offsets[name] = file.size - _KEPT
        return self.offsets[name] < file.size

    def _listen(self, stderr: bytes) -> None:
        """Note what Slurm's daemon says of the job's end."""
        self.stderr_end = (self.stderr_end + stderr)[-TAIL:]
        words = last_words(self.stderr_end.decode("utf-8", "replace"))
        if words != self.evidence.words:
            self.evidence = replace(self.evidence, words=words)

    def forget(self) -> None:
        """Slurm starts the job anew: what was said of its end is true no more."""
        self.meter.begin_anew()
        self.stderr_end = b""
        self.evidence = replace(self.evidence, accounting=None, words=None, asked=None)


def next_event(told: "queue.SimpleQueue[tuple[Watch, Event]]", timeout: float) -> tuple[Watch, Event] | None:
    """Return the next event of watches that share a queue, or nothing after ``timeout`` seconds."""
    try:
        watch, event = told.get(timeout=timeout)
    except queue.Empty:
        return None
    if isinstance(event, Output):
        watch.taken += len(event.data)
    return watch, event
