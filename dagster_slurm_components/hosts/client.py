"""The satellite's operations with types: nobody else writes an operation's name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dagster_slurm_components.errors import HostRefusedError
from dagster_slurm_components.hosts.base import Host, Reply
from dagster_slurm_components.hosts.satellite.protocol import VERSION

_MARGIN = 15.0
"""Seconds that a call may take beyond the operation's own timeouts."""


@dataclass(frozen=True)
class HostFacts:
    """What a host is.

    Attributes:
        user: Name of the user there.
        uid: Number of the user there.
        home: Home folder.
        hostname: The machine's own name.
        python: Version of the Python that the satellite runs on.
        executable: Path of that Python.
        platform: ``sys.platform`` there.
        machine: ``x86_64``, ``aarch64``...
        time: Epoch of the host's clock.
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
    """Slurm queries that all processes on all machines may make together.

    Attributes:
        path: The file on the host that keeps it; who names the same file shares the budget.
        per_minute: Queries that refill it.
        burst: The most it holds.
    """

    path: str
    per_minute: float
    burst: float


@dataclass(frozen=True)
class QueueQuery:
    """The queue's answer that all share; see ``satellite.queries.snapshot``.

    Attributes:
        path: The file on the host that holds it.
        argv: The query.
        max_age: Seconds for which an answer is believed.
        query_timeout: Seconds for the query.
        budget: What it counts against.
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
class SubmitRequest:
    """One submission; see ``satellite.submission.submit`` for the meaning of each field.

    Attributes:
        run_dir: The job's folder, below ``workdir``.
        workdir: Where this project may write on the host.
        token: The job's mark; the same at every try for this run directory.
        mode: ``command``: ``argv`` submits and prints the id; ``process``: ``argv`` is the job.
        argv: The command, run in ``run_dir``.
        lookups: Commands that list the jobs with this token; needed for ``command``.
        id_pattern: Regular expression whose group 1 is the id in a line of the command's output.
        lookup_pattern: The same for a line of the lookups' output.
        ambiguous: Regular expressions of error texts after which the job may exist all the same.
        needs: Paths on the host without which nothing is submitted.
        window: Seconds for which a job may exist without a lookup showing it.
        command_timeout: Seconds for the command and for each lookup.
        lock_timeout: Seconds to wait for another submission of the same run directory.
        limit: How many jobs there may be, if that is limited.
    """

    run_dir: str
    workdir: str
    token: str
    mode: Literal["command", "process"]
    argv: Sequence[str]
    lookups: Sequence[Sequence[str]] = ()
    id_pattern: str = r"^(\d+)(;|$)"
    lookup_pattern: str = r"^(\d+)\|"
    ambiguous: Sequence[str] = ()
    needs: Sequence[str] = ()
    window: float = 300.0
    command_timeout: float = 60.0
    lock_timeout: float = 60.0
    limit: JobLimit | None = None


@dataclass(frozen=True)
class SubmitReply:
    """How a submission went.

    Attributes:
        outcome: ``submitted`` now, ``known`` from the ledger, ``adopted`` as a lookup found it, ``rejected``
            by the command, ``lacking`` what the job needs there, ``full``: there are as many jobs as there may be,
            ask again, or ``uncertain``: nobody knows yet, ask again.
        job_id: The job, for the first three outcomes.
        returncode: Of the command that decided.
        stdout: What it printed.
        stderr: What it printed as errors.
        retry_after: Seconds after which asking again can decide.
        detail: Why it is uncertain or full, or what is lacking.
        others: Further jobs that carry the token; there should be none.
    """

    outcome: Literal["submitted", "known", "adopted", "rejected", "lacking", "full", "uncertain"]
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
    """What was read of a file.

    Attributes:
        path: As asked.
        exists: Whether it is there.
        size: Its size in bytes; below ``offset`` if it was cut.
        inode: Changes when another file has taken its place.
        offset: As asked.
        data: The bytes at ``offset``; fewer than there are when many files share one call.
        mtime: Epoch of its last change.
        error: Why it can't be read, if it is there.
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
    """A query's answer, shared by everyone who names the same file.

    Attributes:
        returncode: Of the query; failures are shared too.
        stdout: What it printed.
        stderr: What it printed as errors.
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


@dataclass(frozen=True)
class Satellite:
    """The operations of a host. Each may raise what ``Host.call`` raises.

    Example:
        ``Satellite(connect(profile.host)).run(["hostname"]).stdout``
    """

    host: Host

    def _call(self, op: str, blob: bytes = b"", /, *, timeout: float = 60.0, **params: Any) -> Reply:
        return self.host.call(op, params, blob, timeout=timeout)

    def hello(self, names: Sequence[str] = ()) -> HostFacts:
        """Return what the host is, and the named environment variables."""
        found = dict(self._call("hello", names=list(names)).result)
        found.pop("pid")
        version = found.pop("version")
        if version != VERSION:
            raise HostRefusedError(
                f"its satellite speaks version {version}, this package version {VERSION}",
                where=self.host.name,
                hint="Both ends must be of the same release: end what still runs the other one.",
            )
        return HostFacts(**found)

    def submit(self, request: SubmitRequest, bundle: bytes) -> SubmitReply:
        """Unpack a bundle (tar or tar.gz) and submit it, once, however often this is called."""
        commands = 2 + len(request.lookups) + (request.limit is not None)
        timeout = request.lock_timeout + commands * request.command_timeout + _MARGIN
        params = dataclasses.asdict(request)
        return SubmitReply(**self._call("submit", bundle, timeout=timeout, **params).result)

    def read(
        self, requests: Sequence[FileRead], *, total: int = 16 * 1024 * 1024, timeout: float = 60.0
    ) -> list[FileData]:
        """Read pieces of many files in one call, ``total`` bytes at most, shared fairly.

        A missing or unreadable file is part of the answer, not an error.
        """
        files = [[request.path, request.offset, request.limit] for request in requests]
        reply = self._call("read", files=files, total=max(total, len(files)), timeout=timeout)
        found = []
        position = 0
        for request, (status, size, inode, mtime, length) in zip(
            requests, reply.result["files"], strict=True
        ):
            found.append(
                FileData(
                    path=request.path,
                    exists=status != "missing",
                    size=size,
                    inode=inode,
                    offset=request.offset,
                    data=reply.blob[position : position + length],
                    mtime=mtime,
                    error=None if status in ("ok", "missing") else status,
                )
            )
            position += length
        return found

    def snapshot(
        self,
        path: str,
        argv: Sequence[str],
        *,
        max_age: float,
        timeout: float = 60.0,
        budget: Budget | None = None,
    ) -> Snapshot:
        """Return the answer to a query from the file at ``path``, if younger than ``max_age``, or ask anew.

        At most one process of all that share the file asks at a time. Raises SatelliteError ``over_budget``
        when it would have to be asked anew and the budget is used up.
        """
        reply = self._call(
            "snapshot",
            path=path,
            argv=list(argv),
            max_age=max_age,
            query_timeout=timeout,
            budget=_asdict(budget),
            timeout=2 * timeout + _MARGIN,
        )
        return Snapshot(**reply.result)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: bytes = b"",  # noqa: A002 - subprocess.run's name
        timeout: float = 60.0,
        budget: Budget | None = None,
    ) -> Completed:
        """Run a command, without a shell, in an environment free of the user's Slurm options.

        Raises SatelliteError ``over_budget`` instead when a budget is given that is used up.
        """
        reply = self._call(
            "run",
            input,
            argv=list(argv),
            cwd=cwd,
            env=dict(env or {}),
            command_timeout=timeout,
            budget=_asdict(budget),
            timeout=timeout + _MARGIN,
        )
        length = reply.result["stdout"]
        return Completed(
            returncode=reply.result["returncode"],
            stdout=reply.blob[:length],
            stderr=reply.blob[length:],
            timed_out=reply.result["timed_out"],
            truncated=reply.result["truncated"],
        )

    def alive(self, processes: Sequence[Process]) -> list[bool]:
        """Return whether each process still runs."""
        params = [[process.pid, process.start] for process in processes]
        return list(self._call("alive", processes=params).result["alive"])

    def kill(self, process: Process, signal: str = "TERM") -> bool:
        """Send a signal to a started process, ``KILL`` to its whole session; return whether it was there."""
        reply = self._call("kill", process=[process.pid, process.start], name=signal)
        return bool(reply.result["sent"])

    def put(self, path: str, data: bytes, mode: int = 0o600, *, append_at: int | None = None) -> None:
        """Write a file whole, by rename; with ``append_at`` cut or grow it from that length on."""
        self._call("put", data, path=path, mode=mode, append_at=append_at, timeout=300.0)

    def mkdir(self, path: str) -> None:
        """Make a folder and its missing parents, 0700."""
        self._call("mkdir", path=path)

    def remove(self, root: str, paths: Sequence[str]) -> None:
        """Remove files and folders strictly below ``root``; a path elsewhere refuses the whole call."""
        self._call("remove", root=root, paths=list(paths), timeout=300.0)

    def disk(self, path: str) -> Disk:
        """Return the size of the file system at ``path``, and what is left."""
        return Disk(**self._call("disk", path=path).result)


def _asdict(budget: Budget | None) -> dict[str, Any] | None:
    return None if budget is None else dataclasses.asdict(budget)
