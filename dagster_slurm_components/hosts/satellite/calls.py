"""What goes into the operations, and what comes out of them; both ends of a connection read it here.

Values that lie in others travel as JSON lists of their fields, in order.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple


class HostFacts(NamedTuple):
    """What a host is: its satellite, user and Python, the epoch of its clock, and the variables that were asked for."""

    pid: int
    user: str
    home: str
    hostname: str
    python: str
    executable: str
    time: float
    environment: Dict[str, str]


class Budget(NamedTuple):
    """Slurm queries that all processes on all machines may make together, which name the same file on the host.

    It is refilled by ``per_minute`` queries, and holds ``burst`` at most.
    """

    path: str
    per_minute: float
    burst: float


class QueueQuery(NamedTuple):
    """The queue's answer that all share who name the same file on the host.

    An answer up to ``max_age`` seconds old will do, and the query may take ``query_timeout``. ``spare`` says that it is
    only nice to have (``satellite.budget``), as what is no queue at all.
    """

    path: str
    argv: Sequence[str]
    max_age: float
    query_timeout: float = 60.0
    budget: Optional[Budget] = None
    spare: bool = False


class AccountingQuery(NamedTuple):
    """A question about ended jobs, whose answers all share who name the same file on the host.

    Attributes:
        argv: The command without the jobs' ids; ``most`` of them are asked for at once.
        jobs: The id of each job, and the age in seconds up to which an answer about it will do.
        spare: Whether it is only nice to know (``satellite.budget``).
    """

    path: str
    argv: Sequence[str]
    jobs: Sequence[Tuple[str, float]]
    most: int
    query_timeout: float = 60.0
    budget: Optional[Budget] = None
    spare: bool = False


class Accounts(NamedTuple):
    """What the accounting said of jobs, by id: the answer's age and the lines about it, none where it is not known.

    A job that was not asked for lately is missing. The newest query that failed is ``failed_age`` seconds old;
    ``said`` is what it wrote to stderr, if none has succeeded since. Ages are those when this call came; ``fresh`` says
    whether it made a query itself.
    """

    answers: Dict[str, Tuple[float, str]]
    failed_age: float
    said: str
    fresh: bool


class JobLimit(NamedTuple):
    """How many jobs there may be at once; who names the same file on the host shares the places.

    A submitted job shows within ``window`` seconds in the queue's answer ``snapshot``, where group 1 of the regular
    expression ``live`` is the id in a line about a job that takes a place. Without it jobs are processes.
    """

    jobs: int
    path: str
    window: float
    snapshot: Optional[QueueQuery] = None
    live: str = ""


class LeaseRequest(NamedTuple):
    """Who submits a job, and what it is made of; ``satellite.leases`` says what most of the words mean.

    ``epoch`` is that of the lease, for a job that was taken over; none for a new one.
    """

    digest: str
    content: str
    owner: Dict[str, Any]
    note: Dict[str, Any]
    epoch: Optional[int] = None


class LeaseRenewal(NamedTuple):
    """A sign of life of who follows a job; ``shown`` is what a person has seen of the output, where that is news."""

    run_dir: str
    epoch: int
    shown: Optional[Dict[str, Any]] = None


class AttemptFiles(NamedTuple):
    """What a run directory's own files say of its job: its lease, and its ledger's text."""

    run_dir: str
    lease: Dict[str, Any]
    ledger: str


class SubmitRequest(NamedTuple):
    """One submission.

    Attributes:
        run_dir: The job's folder, below ``workdir``; one job for one run directory.
        workdir: Where this project may write on the host.
        token: The job's mark; the same at every try for this run directory.
        mode: ``command``: ``argv`` submits and prints the id; ``process``: ``argv`` is the job.
        argv: The command, run in ``run_dir``.
        lookups: Commands that list the jobs with this token, ``ID|`` first in a line, asked when an earlier try's end
            is not known; needed for ``command``. One that fails proves nothing; while the first fails, the queue's,
            nothing is submitted.
        no_lookup: Regular expression of what a lookup says that has nothing to look in: there is no accounting.
        ambiguous: Regular expressions of error texts after which the job may exist all the same.
        needs: Paths on the host without which nothing is submitted.
        window: Seconds for which a job may exist without a lookup showing it.
        queue_window: The same where another lookup than the first fails.
        command_timeout: Seconds for the command and for each lookup.
        lock_timeout: Seconds to wait for another submission of the same run directory.
        tasks: How many of the places of ``limit`` it takes: an array takes one for each task.
        export: Variables of the login that the job inherits, beside those that all do.
        settle_only: Only find out whether an earlier try made a job.
    """

    run_dir: str
    workdir: str
    token: str
    mode: str
    argv: Sequence[str]
    lookups: Sequence[Sequence[str]] = ()
    no_lookup: str = ""
    ambiguous: Sequence[str] = ()
    needs: Sequence[str] = ()
    window: float = 300.0
    queue_window: float = 900.0
    command_timeout: float = 60.0
    lock_timeout: float = 60.0
    limit: Optional[JobLimit] = None
    claim: Optional[LeaseRequest] = None
    tasks: int = 1
    export: Sequence[str] = ()
    settle_only: bool = False


class SubmitReply(NamedTuple):
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

    outcome: str
    job_id: Optional[str] = None
    returncode: Optional[int] = None
    stdout: str = ""
    stderr: str = ""
    retry_after: Optional[float] = None
    detail: str = ""
    others: Sequence[str] = ()


class FileRead(NamedTuple):
    """A wish to read a file from ``offset``, ``limit`` bytes at most."""

    path: str
    offset: int = 0
    limit: int = 1024 * 1024


class FileData(NamedTuple):
    """What was read of a file.

    Its ``size`` is below the asked offset if it was cut; its ``inode`` changes when another file has taken its place.
    The ``data`` are fewer than there are when many files share one call. ``error`` says why it can't be read, if it
    exists.
    """

    exists: bool
    size: int
    inode: int
    data: bytes
    mtime: float = 0.0
    error: Optional[str] = None


class Received(NamedTuple):
    """What became of pieces of files: the ``inodes`` they went into, and which whole ones are ``wrong``, by number."""

    inodes: List[int]
    wrong: List[int]


class Match(NamedTuple):
    """A file that a pattern stands for: its name below the pattern's first wildcard, and where it really is."""

    name: str
    path: str
    size: int
    inode: int
    mtime_ns: int


class Snapshot(NamedTuple):
    """A query's answer, failures included, shared by everyone who names the same file.

    It was asked at the epoch ``asked`` by the host's clock, ``age`` seconds before this call came, and is ``fresh``
    when this very call ran the query.
    """

    returncode: int
    stdout: str
    stderr: str
    asked: float
    age: float
    fresh: bool
    timed_out: bool = False


class Completed(NamedTuple):
    """A command that ended; ``truncated`` when it printed more than was kept."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    truncated: bool = False


class Process(NamedTuple):
    """A process that can't be mistaken for a later one with the same number.

    The start (the kernel's ticks and boot, or what ps says where there is no /proc) tells them apart.
    """

    pid: int
    start: str

    @classmethod
    def parse(cls, job_id: str) -> "Process":
        """Read the job id that a submission in ``process`` mode returned."""
        pid, _, start = job_id.partition(":")
        return cls(int(pid), start)


class Disk(NamedTuple):
    """A file system: bytes and inodes, all of them and those still free for this user."""

    total: int
    available: int
    inodes: int
    inodes_available: int
