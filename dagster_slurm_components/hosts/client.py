"""The satellite's operations with types: nobody else writes an operation's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_slurm_components.hosts.base import Host, Reply
from dagster_slurm_components.hosts.satellite import calls

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

    def hello(self, names: Sequence[str] = ()) -> calls.HostFacts:
        """Return what the host is, and the named environment variables."""
        return calls.HostFacts(**self._call("hello", names=list(names)).result)

    def submit(self, request: calls.SubmitRequest, bundle: bytes) -> calls.SubmitReply:
        """Unpack a bundle (tar or tar.gz) and submit it, once, however often this is called."""
        commands = 2 + len(request.lookups) + (request.limit is not None)
        timeout = request.lock_timeout + commands * request.command_timeout + _MARGIN
        return calls.SubmitReply(**self._call("submit", bundle, timeout=timeout, **request._asdict()).result)

    def read(
        self, requests: Sequence[calls.FileRead], *, total: int = 16 * 1024 * 1024
    ) -> list[calls.FileData]:
        """Read pieces of many files in one call, ``total`` bytes at most, shared fairly.

        A missing or unreadable file is part of the answer, not an error.
        """
        return self.follow(requests, (), total=total)[0]

    def follow(
        self, requests: Sequence[calls.FileRead], renewals: Sequence[calls.LeaseRenewal], *, total: int
    ) -> tuple[list[calls.FileData], list[tuple[int, str]]]:
        """Read, and renew the leases of the jobs that are followed; return the epoch and state of each, too."""
        total = max(total, len(requests))
        reply = self._call("read", files=list(requests), total=total, leases=list(renewals))
        return _files_of(reply), [(epoch, state) for epoch, state in reply.result["leases"]]

    def fetch(self, requests: Sequence[calls.FileRead], *, total: int) -> list[calls.FileData]:
        """Read much, as ``read`` does; several such calls at once go by several channels."""
        return _files_of(self._call("fetch", files=list(requests), total=total, timeout=300.0))

    def matches(self, root: str, pattern: str, *, files: int, entries: int) -> tuple[list[calls.Match], int]:
        """Return the files that a pattern stands for in a folder, and how many entries of folders were looked at.

        Raises SatelliteError ``too_many`` where there are more than so many ``files`` or ``entries``.
        """
        found = self._call("matches", root=root, pattern=pattern, files=files, entries=entries).result
        return [calls.Match(*row) for row in found["files"]], found["looked"]

    def digests(self, paths: Sequence[str], piece: int = 0) -> list[list[str] | None]:
        """Return the SHA-256 of each ``piece`` bytes of files, or of all of each; none of one that is no file."""
        return list(self._call("digests", paths=list(paths), piece=piece, timeout=3600.0).result["digests"])

    def receive(
        self,
        data: bytes = b"",
        *,
        folders: Sequence[tuple[str, int]] = (),
        copies: Sequence[tuple[str, str]] = (),
        pieces: Sequence[tuple[str, int, int]] = (),
        whole: Sequence[tuple[str, str, int, int, int]] = (),
    ) -> calls.Received:
        """Make folders, copy files, write pieces of files, publish whole ones (``satellite.uploads.receive``)."""
        what = {
            "folders": list(folders),
            "copies": list(copies),
            "pieces": list(pieces),
            "whole": list(whole),
        }
        return calls.Received(**self._call("receive", data, timeout=3600.0, **what).result)

    def attempts(self, folder: str) -> list[calls.AttemptFiles]:
        """Return the attempts of a call, in order."""
        rows = self._call("attempts", folder=folder).result["attempts"]
        return [calls.AttemptFiles(*row) for row in rows]

    def open_leases(self, workdir: str) -> tuple[list[calls.AttemptFiles], float]:
        """Return the attempts on which somebody may still have to act, and the host's clock."""
        found = self._call("open_leases", workdir=workdir).result
        return [calls.AttemptFiles(*row) for row in found["attempts"]], found["time"]

    def change_lease(
        self, run_dir: str, workdir: str, epoch: int, **changes: Any
    ) -> tuple[bool, Mapping[str, Any] | None]:
        """Change a lease (``satellite.leases.change_lease``) if its epoch is the one given.

        Returns whether it was changed, and the lease as it is now.
        """
        lease = {"run_dir": run_dir, "workdir": workdir, "epoch": epoch}
        result = self._call("change_lease", timeout=60.0 + _MARGIN, **lease, **changes).result
        return result["changed"], result["lease"]

    def snapshot(self, query: calls.QueueQuery) -> calls.Snapshot:
        """Return the shared answer to a query, if young enough or the budget is used up, or ask anew.

        Raises SatelliteError ``over_budget`` when the budget is used up and there is no answer.
        """
        timeout = 2 * query.query_timeout + _MARGIN
        return calls.Snapshot(**self._call("snapshot", timeout=timeout, **query._asdict()).result)

    def accounting(self, query: calls.AccountingQuery) -> calls.Accounts:
        """Return what the accounting said of jobs lately; it is asked for those where that is too old, if it may be."""
        timeout = 2 * query.query_timeout + _MARGIN
        return calls.Accounts(**self._call("accounting", timeout=timeout, **query._asdict()).result)

    def share(self, path: str, who: str, weight: float) -> float:
        """Return the part of a ceiling that is ours, of all who name the same file on the host."""
        return weight / float(self._call("share", path=path, who=who, weight=weight).result["total"])

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: bytes = b"",  # noqa: A002 - subprocess.run's name
        timeout: float = 60.0,
    ) -> calls.Completed:
        """Run a command, without a shell, in an environment free of the user's Slurm options."""
        command = {"argv": list(argv), "cwd": cwd, "env": dict(env or {}), "command_timeout": timeout}
        reply = self._call("run", input, timeout=timeout + _MARGIN, **command)
        length = reply.result["stdout"]
        outputs = {"stdout": reply.blob[:length], "stderr": reply.blob[length:]}
        return calls.Completed(**{**reply.result, **outputs})

    def alive(self, processes: Sequence[calls.Process]) -> list[bool]:
        """Return whether each process still runs."""
        return list(self._call("alive", processes=list(processes)).result["alive"])

    def kill(self, process: calls.Process, signal: str = "TERM") -> bool:
        """Send a signal to a started process, ``KILL`` to its whole session; return whether it was there."""
        return bool(self._call("kill", process=process, name=signal).result["sent"])

    def put(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Write a file, whole and by rename."""
        self._call("put", data, path=path, mode=mode, timeout=300.0)

    def mkdir(self, path: str, workdir: str) -> None:
        """Make a folder in a workdir, or that itself, and its missing parents, 0700 and this user's alone."""
        self._call("mkdir", path=path, workdir=workdir)

    def remove(self, root: str, paths: Sequence[str]) -> None:
        """Remove files and folders strictly below ``root``; a path elsewhere refuses the whole call."""
        self._call("remove", root=root, paths=list(paths), timeout=300.0)

    def disk(self, path: str) -> calls.Disk:
        """Return the size of the file system at ``path``, and what is left."""
        return calls.Disk(**self._call("disk", path=path).result)


def _files_of(reply: Reply) -> list[calls.FileData]:
    pieces, rest = [], memoryview(reply.blob)
    for status, size, inode, mtime, length in reply.result["files"]:
        data = reply.blob if length == len(reply.blob) else bytes(rest[:length])  # a large one is not copied
        rest = rest[length:]
        error = None if status in ("ok", "missing") else status
        pieces.append(calls.FileData(status != "missing", size, inode, data, mtime, error))
    return pieces
