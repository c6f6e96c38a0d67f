"""What goes into the satellite's operations, and what comes out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dagster_slurm_components.hosts.satellite.queries import JOB_ID_LINE


@dataclass(frozen=True)
class HostFacts:
    """What a host is: its user, ``sys.platform``, its Python, and the epoch of its clock.

    Attributes:
        environment: The variables that were asked for and are set.
    """

    user: str
    uid: int
    home: str
    hostname: str
    python: str
    executable: str
    platform: str
    machine: str
    time: float
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Budget:
    """Slurm queries that all processes on all machines may make together, which name the same file on the host.

    It is refilled by ``per_minute`` queries, and holds ``burst`` at most.
    """

    path: str
    per_minute: float
    burst: float


@dataclass(frozen=True)
class QueueQuery:
    """The queue's answer that all share who name the same file on the host; see ``satellite.queries.snapshot``.

    An answer is believed for ``max_age`` seconds, and the query may take ``query_timeout``.
    """

    path: str
    argv: Sequence[str]
    max_age: float
    query_timeout: float
    budget: Budget | None = None


@dataclass(frozen=True)
class JobLimit:
    """How many jobs there may be at once; see ``satellite.places.Places``.

    Attributes:
        jobs: The most.
        path: The file on the host that keeps account; who names the same file shares the places.
        window: Seconds within which a submitted job shows in the queue.
        snapshot: The queue's answer; nothing where jobs are processes.
        live: Regular expression whose group 1 is the id in a line about a job that takes a place.
    """

    jobs: int
    path: str
    window: float
    snapshot: QueueQuery | None = None
    live: str = ""


@dataclass(frozen=True)
class LeaseRequest:
    """Who submits a job, and what it is made of; see ``satellite.leases``, which has most of these words.

    Attributes:
        note: What the owner keeps for whoever takes the job over.
        epoch: The lease's epoch, for a job that was taken over; none for a new one.
    """

    digest: str
    content: str
    owner: Mapping[str, Any]
    note: Mapping[str, Any]
    epoch: int | None = None


@dataclass(frozen=True)
class LeaseRenewal:
    """A sign of life of who follows a job; ``shown`` is what a person has seen of the output, where that is news."""

    run_dir: str
    epoch: int
    shown: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AttemptFiles:
    """What a run directory's own files say of its job: its lease, and its ledger's text."""

    run_dir: str
    lease: Mapping[str, Any]
    ledger: str


@dataclass(frozen=True)
class SubmitRequest:
    """One submission.

    Attributes:
        run_dir: The job's folder, below ``workdir``; one job for one run directory.
        workdir: Where this project may write on the host.
        token: The job's mark; the same at every try for this run directory.
        mode: ``command``: ``argv`` submits and prints the id; ``process``: ``argv`` is the job.
        argv: The command, run in ``run_dir``.
        lookups: Commands that list the jobs with this token, asked when an earlier try's end is not known; needed for
            ``command``. One that fails proves nothing, and nothing is submitted then.
        id_pattern: Regular expression whose group 1 is the id in a line of the command's output; the last one counts.
        lookup_pattern: The same for a line of the lookups' output.
        ambiguous: Regular expressions of error texts after which the job may exist all the same.
        needs: Paths on the host without which nothing is submitted.
        window: Seconds for which a job may exist without a lookup showing it.
        command_timeout: Seconds for the command and for each lookup.
        lock_timeout: Seconds to wait for another submission of the same run directory.
        limit: How many jobs there may be, if that is limited.
        claim: Who submits, and what.
        settle_only: Only find out whether an earlier try made a job.
    """

    run_dir: str
    workdir: str
    token: str
    mode: Literal["command", "process"]
    argv: Sequence[str]
    lookups: Sequence[Sequence[str]] = ()
    id_pattern: str = JOB_ID_LINE
    lookup_pattern: str = r"^(\d+)\|"
    ambiguous: Sequence[str] = ()
    needs: Sequence[str] = ()
    window: float = 300.0
    command_timeout: float = 60.0
    lock_timeout: float = 60.0
    limit: JobLimit | None = None
    claim: LeaseRequest | None = None
    settle_only: bool = False


@dataclass(frozen=True)
class SubmitReply:
    """How a submission went; ``returncode``, ``stdout`` and ``stderr`` are those of the command that decided.

    Attributes:
        outcome: ``submitted`` now, ``known`` from the ledger, ``adopted`` as a lookup found it, ``rejected``
            by the command, ``lacking`` what the job needs there, ``full``: there are as many jobs as there may be,
            ask again, ``taken`` by another owner or for other content, ``none``: no earlier try made one, or
            ``uncertain``: nobody knows yet, ask again.
        job_id: The job, for the first three outcomes.
        retry_after: Seconds after which asking again can decide.
        detail: Why it is uncertain or full, or what is lacking.
        others: Further jobs that carry the token; there should be none.
    """

    outcome: Literal[
        "submitted", "known", "adopted", "rejected", "lacking", "full", "taken", "none", "uncertain"
    ]
    job_id: str | None = None
    returncode: int | None = None
    stdout: str = ""
    stderr: str = ""
    retry_after: float | None = None
    detail: str = ""
    others: Sequence[str] = ()


@dataclass(frozen=True)
class FileRead:
    """A wish to read a file from ``offset``, ``limit`` bytes at most."""

    path: str
    offset: int = 0
    limit: int = 1024 * 1024


@dataclass(frozen=True)
class FileData:
    """What was read of a file; ``path`` and ``offset`` are as asked.

    Attributes:
        size: Its size in bytes; below ``offset`` if it was cut.
        inode: Changes when another file has taken its place.
        data: The bytes at ``offset``; fewer than there are when many files share one call.
        mtime: Epoch of its last change.
        error: Why it can't be read, if it exists.
    """

    path: str
    exists: bool
    size: int
    inode: int
    offset: int
    data: bytes
    mtime: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A query's answer, failures included, shared by everyone who names the same file.

    Attributes:
        taken: Epoch, by the host's clock.
        fresh: Whether this very call ran the query.
        timed_out: Whether it was killed.
    """

    returncode: int
    stdout: str
    stderr: str
    taken: float
    fresh: bool
    timed_out: bool = False


@dataclass(frozen=True)
class Completed:
    """A command that ended; ``truncated`` when it printed more than was kept."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Process:
    """A process that can't be mistaken for a later one with the same number."""

    pid: int
    start: str

    @classmethod
    def parse(cls, job_id: str) -> Process:
        """Read the job id that a submission in ``process`` mode returned."""
        pid, _, start = job_id.partition(":")
        return cls(int(pid), start)


@dataclass(frozen=True)
class Disk:
    """A file system: bytes and inodes, all of them and those still free for this user."""

    total: int
    available: int
    inodes: int
    inodes_available: int
