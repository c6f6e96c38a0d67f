"""What a working folder on a host holds of environments and packages: what it lacks, what is sent, and their care."""

import concurrent.futures
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dagster_slurm_components.environments.content import Artifact, Progress, silent
from dagster_slurm_components.environments.plan import Provided
from dagster_slurm_components.errors import EnvironmentFailedError, ProgramError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.program import BOOTSTRAP, program, shipped
from dagster_slurm_components.hosts.satellite.calls import FileRead

PROGRAM = "dagster_slurm_components.environments.host.program"
"""What takes the builder's orders on the host; it is sent along with each."""

PIECE = 16 * 1024 * 1024
"""Bytes of one piece. It travels in one call and is there whole or not at all, so an upload resumes between pieces."""

# The host's connection shares them among a few channels; on each one travels while another is written.
_AT_ONCE = 8
_SHORT = 120.0
_CARE_TIMEOUT = 1800.0
_LARGEST_MANIFEST = 64 * 1024 * 1024

_HINTS = {
    "tampered": "Run it again: the file is sent anew. If it happens again, who else writes there?",
    "missing": "Run it again: what is missing is sent anew.",
    "no_runtime": "Load a module that brings it (`modules`), or fetch the image elsewhere and name the file.",
    "no_squashfs": "Load a module that brings squashfs-tools (`modules`), or set the environment's `form` to `folder`.",
    "locked": "Another process builds this environment; look for what works below `envs/` in the host's process list.",
    "activation_failed": "Load the same `modules` and run the same `setup` on the host by hand.",
    "differs": "Nothing was published. Report this together with the lock file.",
}


class Piece(NamedTuple):
    """A part of an artifact on its way."""

    artifact: Artifact
    number: int
    size: int

    @property
    def path(self) -> str:
        """Where it lies below the store."""
        return f"incoming/{self.artifact.sha256}/{self.number}"

    def data(self) -> bytes:
        """Read it from this machine's file."""
        with Path(self.artifact.path or "").open("rb") as file:
            file.seek(self.number * PIECE)
            return file.read(self.size)


def pieces_of(artifact: Artifact) -> list[Piece]:
    """Return the pieces of a fetched artifact."""
    size = artifact.size or 0
    count = max(1, -(-size // PIECE))
    return [Piece(artifact, number, min(PIECE, size - number * PIECE)) for number in range(count)]


@dataclass(frozen=True)
class Store:
    """The environments of a profile's working folder, and the packages they are made from.

    If it is ``deployed``, only environments are accepted that `dg-slurm env deploy` made.
    """

    satellite: Satellite
    workdir: str
    profile: str = ""
    deployed: bool = False

    def provided(self, manifest: Mapping[str, Any], state: str, sent: int = 0) -> Provided:
        """Return the environment that has this manifest."""
        return Provided(f"{self.workdir}/envs/{manifest['key']}", manifest, state, sent)

    def published(self, key: str) -> Provided | None:
        """Return an environment if it is there. One call."""
        read = FileRead(f"{self.workdir}/envs/{key}/.ready", 0, _LARGEST_MANIFEST)
        (file,) = self.satellite.read([read], total=_LARGEST_MANIFEST)
        return self.provided(json.loads(file.data), "ready") if file.exists else None

    def call(self, action: str, order: Mapping[str, Any], *, timeout: float = _SHORT) -> Any:
        """Let the builder there do one action, and return its result; what it says else is an EnvironmentFailedError.

        A build goes on when the connection is lost; the next one with the same key waits for it and adopts it.
        """
        try:
            return ask(self.satellite, PROGRAM, action, {"workdir": self.workdir, **order}, timeout=timeout)
        except ProgramError as error:
            code, hint = error.code, _HINTS.get(error.code)
            raise EnvironmentFailedError(
                error.text, code=code, detail=error.detail, where=error.where, hint=hint
            ) from None

    def lacking(self, artifacts: Sequence[Artifact]) -> list[Artifact]:
        """Return the artifacts that are not here yet. One call."""
        sizes = self._sizes([f"{item.sha256[:2]}/{item.sha256}" for item in artifacts])
        pairs = zip(artifacts, sizes, strict=True)
        return [item for item, size in pairs if size is None or item.size not in (None, size)]

    def _sizes(self, paths: Sequence[str]) -> list[int | None]:
        files = self.satellite.read([FileRead(f"{self.workdir}/store/{path}", 0, 0) for path in paths])
        return [file.size if file.exists else None for file in files]

    def upload(self, artifacts: Sequence[Artifact], progress: Progress = silent) -> int:
        """Send fetched artifacts, and return the bytes that travelled: what an earlier try sent is not sent again."""
        pieces = [piece for artifact in artifacts for piece in pieces_of(artifact)]
        sizes = self._sizes([piece.path for piece in pieces])
        waiting = [piece for piece, size in zip(pieces, sizes, strict=True) if size != piece.size]
        total, done = sum(piece.size for piece in waiting), 0
        for digest in dict.fromkeys(piece.artifact.sha256 for piece in waiting):
            self.satellite.mkdir(f"{self.workdir}/store/incoming/{digest}", self.workdir)
        progress("upload", 0, total)
        try:
            with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
                for size in pool.map(self._send, waiting):  # of which the rest is cancelled when one fails
                    done += size
                    progress("upload", done, total)
        except SatelliteError as error:
            if error.code == "disk_full":
                raise self.disk_full(str(error), total) from error
            raise
        return total

    def _send(self, piece: Piece) -> int:
        path = f"{self.workdir}/store/{piece.path}"
        try:
            self.satellite.put(path, piece.data())
        except SatelliteError as error:
            if error.code != "not_found":
                raise
            # Another machine sent the same artifact, and its builder has cleared the pieces away by now.
            self.satellite.mkdir(path.rpartition("/")[0], self.workdir)
            self.satellite.put(path, piece.data())
        return piece.size

    def disk_full(self, message: str, wanted: int) -> EnvironmentFailedError:
        """Return the error that says how full the host's disk is, and what to do."""
        disk = self.satellite.disk(self.workdir)
        room = f"{disk.available / 1e6:.0f} MB and {disk.inodes_available} inodes are free at {self.workdir}"
        hint = (
            f"{room}, {wanted / 1e6:.0f} MB are to be sent, and an environment takes about four times as much. "
            "`dg-slurm env prune` removes unused environments; a quota may be smaller than what is free. "
            "Nothing half-made was left."
        )
        text, where = f"no room for the environment: {message}", self.satellite.host.name
        return EnvironmentFailedError(text, code="disk_full", where=where, hint=hint)

    def inventory(self) -> dict[str, Any]:
        """Return what is here, as JSON values; files that several environments share count in each."""
        answer = self.call("list", {})
        names = ("key", "name", "kind", "packages", "created", "used", "bytes", "inodes")
        rows = [{name: row[name] for name in names} for row in answer["environments"]]
        size = {f"store_{name}": answer["store"][name] for name in ("bytes", "inodes")}
        return {"environments": [{**row, "packages": len(row["packages"])} for row in rows], **size}

    def verify(self, mode: Literal["names", "full"] = "full") -> Mapping[str, tuple[str, ...]]:
        """Return in what each environment differs from what it was published with, by key."""
        answer = self.call("verify", {"check": check_order(mode)}, timeout=_CARE_TIMEOUT)
        return {key: tuple(lines) for key, lines in answer["differences"].items()}

    def prune(self, keep: Sequence[str], *, unused_for: float, dry_run: bool = False) -> Mapping[str, Any]:
        """Remove environments that nobody refers to, and files of the store that no environment needs.

        Kept are those whose keys are in ``keep``, those of jobs that wait or run, and those that a job used in the last
        ``unused_for`` seconds.

        Returns:
            ``removed``: key, name and bytes of each; ``kept``: why, by key; ``freed``: bytes of the store's files that
            nobody needs any more.
        """
        order = {"keep": list(keep), "unused_for": unused_for, "dry_run": dry_run}
        answer: Mapping[str, Any] = self.call("prune", order, timeout=_CARE_TIMEOUT)
        return answer


def ask(
    satellite: Satellite,
    module: str,
    action: str,
    order: Mapping[str, Any],
    *,
    timeout: float,
    launcher: Sequence[str] = (),
) -> Any:
    """Let a program of ours, by the name of its module, do one action on a host, and return its result.

    ``launcher`` is the beginning of a command line that starts it elsewhere: ``srun --partition=datamover``.

    Raises:
        ProgramError: It could not, or was not heard of for ``timeout`` seconds.
    """
    text, where = program(module), satellite.host.name
    argv = [*launcher, satellite.hello().executable, "-I", "-c", BOOTSTRAP, str(len(text))]
    request = json.dumps({"action": action, "order": order}).encode()
    done = satellite.run(argv, input=text + request, timeout=timeout)
    try:
        answer = json.loads(done.stdout.decode("utf-8").strip().splitlines()[-1])
    except (ValueError, IndexError):
        words = done.stderr.decode("utf-8", "replace").strip()[-2000:] or "it said nothing"
        cause = f"it did not end within {timeout:.0f} s" if done.timed_out else words
        raise ProgramError(f"our program for `{action}` failed: {cause}", where=where) from None
    if not answer["ok"]:
        raise ProgramError(answer["message"], code=answer["code"], detail=answer["detail"], where=where)
    return answer["result"]


def check_order(mode: str) -> dict[str, Any]:
    """Return what the builder needs to let an environment check itself."""
    return {"program": shipped("environments/job/verify_environment.py"), "mode": mode}
