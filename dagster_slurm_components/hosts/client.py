"""The satellite's operations with types: nobody else writes an operation's name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_slurm_components.errors import HostRefusedError
from dagster_slurm_components.hosts.base import Host, Reply
from dagster_slurm_components.hosts.calls import (
    AttemptFiles,
    Budget,
    Completed,
    Disk,
    FileData,
    FileRead,
    HostFacts,
    LeaseRenewal,
    Process,
    QueueQuery,
    Snapshot,
    SubmitReply,
    SubmitRequest,
)
from dagster_slurm_components.hosts.satellite.protocol import VERSION

_MARGIN = 15.0
"""Seconds that a call may take beyond the operation's own timeouts."""


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
        params = {"files": _rows(requests), "total": max(total, len(requests))}
        return _pieces(requests, self._call("read", timeout=timeout, **params))

    def follow(
        self, requests: Sequence[FileRead], renewals: Sequence[LeaseRenewal], *, total: int
    ) -> tuple[list[FileData], list[tuple[int, str]]]:
        """Read, and renew the leases of the jobs that are followed; return the epoch and state of each, too."""
        params: dict[str, Any] = {"files": _rows(requests), "leases": _rows(renewals)}
        reply = self._call("read", total=max(total, len(requests)), **params)
        return _pieces(requests, reply), [(epoch, state) for epoch, state in reply.result["leases"]]

    def attempts(self, folder: str) -> list[AttemptFiles]:
        """Return the attempts of a call, in order."""
        rows = self._call("attempts", folder=folder).result["attempts"]
        return [AttemptFiles(*row) for row in rows]

    def open_leases(self, workdir: str) -> tuple[list[AttemptFiles], float]:
        """Return the attempts on which somebody may still have to act, and the host's clock."""
        found = self._call("open_leases", workdir=workdir).result
        return [AttemptFiles(*row) for row in found["attempts"]], found["time"]

    def change_lease(
        self,
        run_dir: str,
        workdir: str,
        epoch: int,
        *,
        state: str | None = None,
        owner: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        finished: float | None = None,
        shown: Mapping[str, Any] | None = None,
    ) -> tuple[bool, Mapping[str, Any] | None]:
        """Change a lease if its epoch is the one given; return whether it was, and the lease as it is now."""
        lease = {"run_dir": run_dir, "workdir": workdir, "epoch": epoch}
        wanted = {"state": state, "owner": owner, "outcome": outcome, "finished": finished, "shown": shown}
        result = self._call("change_lease", timeout=60.0 + _MARGIN, **lease, **wanted).result
        return result["changed"], result["lease"]

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

        Raises SatelliteError ``over_budget`` when it would have to be asked anew and the budget is used up.
        """
        query = dataclasses.asdict(QueueQuery(path, list(argv), max_age, timeout, budget))
        return Snapshot(**self._call("snapshot", timeout=2 * timeout + _MARGIN, **query).result)

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
        command = {"argv": list(argv), "cwd": cwd, "env": dict(env or {}), "command_timeout": timeout}
        allowed = None if budget is None else dataclasses.asdict(budget)
        reply = self._call("run", input, timeout=timeout + _MARGIN, **command, budget=allowed)
        ended = dict(reply.result)
        length = ended.pop("stdout")
        return Completed(**{**ended, "stdout": reply.blob[:length], "stderr": reply.blob[length:]})

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


def _rows(values: Sequence[FileRead | LeaseRenewal]) -> list[list[Any]]:
    return [list(vars(value).values()) for value in values]


def _pieces(requests: Sequence[FileRead], reply: Reply) -> list[FileData]:
    pieces = []
    rest = memoryview(reply.blob)
    for request, (status, size, inode, mtime, length) in zip(requests, reply.result["files"], strict=True):
        data, rest = bytes(rest[:length]), rest[length:]
        error = None if status in ("ok", "missing") else status
        piece = FileData(request.path, status != "missing", size, inode, request.offset, data, mtime, error)
        pieces.append(piece)
    return pieces
