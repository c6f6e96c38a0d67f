"""What a watcher tells whoever follows a job, and the state it keeps of each job."""

import queue
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.satellite.calls import FileData
from dagster_slurm_components.jobs.lease import FOLLOWING, OutputPosition
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.jobs.status import STATUS, StatusRecord, parse_status

MESSAGES, STDOUT, STDERR = "messages.jsonl", "stdout.log", "stderr.log"
"""The files of a run directory that are streamed back while the job runs."""

_MAX_LAG = 64 * 1024 * 1024
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
    """The job has ended for good and all its output was delivered."""

    observation: Observation
    evidence: Evidence


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
    Events go to the ``sink``, if there is one: so one thread follows many jobs.
    """

    handle: JobHandle
    epoch: int | None = None
    part: Part = Part.JOB
    sink: "Callable[[Watch, Event], None] | None" = None
    offsets: dict[str, int] = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)
    shown: OutputPosition | None = None
    shown_written: OutputPosition | None = None
    renew_at: float = 0.0
    lease_state: str = FOLLOWING
    observation: Observation = field(default_factory=Observation)
    evidence: Evidence = field(default_factory=Evidence)
    judged: Evidence | None = None
    status_text: bytes = b""
    changed_at: float = 0.0
    read_at: float = 0.0
    accounting_asked_at: float = 0.0
    closing_until: float | None = None
    closed: bool = False
    delivered: int = 0
    taken: int = 0
    host_error: type[HostUnreachableError] | None = None
    _events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)

    def put(self, event: Event) -> None:
        """Deliver an event to whoever follows the job."""
        if isinstance(event, Output):
            self.delivered += len(event.data)
        if self.sink is not None:
            self.sink(self, event)
        else:
            self._events.put(event)

    def next(self, timeout: float) -> Event | None:
        """Return the next event, or nothing after ``timeout`` seconds."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        self.took(event)
        return event

    def took(self, event: Event) -> None:
        """Count what whoever follows the job has taken."""
        if isinstance(event, Output):
            self.taken += len(event.data)

    @property
    def backlog(self) -> int:
        """Bytes that were delivered and not taken yet: two counts, each written by one thread alone."""
        return self.delivered - self.taken

    def close(self) -> None:
        """Stop following; the job itself goes on."""
        self.closed = True

    @property
    def files(self) -> tuple[str, ...]:
        """The files worth a look now: a job that has not started writes none but ``status``."""
        if self.part is Part.LEASE:
            return ()
        started = self.evidence.status is not None or self.closing_until is not None
        return (STATUS, MESSAGES, STDOUT, STDERR) if started else (STATUS,)

    @property
    def wants_accounting(self) -> bool:
        """Whether the accounting is to tell how the job goes on, or, once it has ended, what it used."""
        ended = self.closing_until is not None and self.part is Part.JOB
        closing = ended and self.evidence.accounting is None
        return closing or self.observation.wants_accounting

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
        else:
            self.put(Output(name, file.data))
        left = file.size - self.offsets[name]
        if name in (STDOUT, STDERR) and left > _MAX_LAG:
            self.put(OutputSkipped(name, left - _KEPT))
            self.offsets[name] = file.size - _KEPT
        return self.offsets[name] < file.size
