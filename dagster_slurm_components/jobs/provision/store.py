"""The content store of a host: what it lacks, and sending exactly that."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.calls import FileRead
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError
from dagster_slurm_components.jobs.provision.progress import Counter, Progress, silent

PIECE = 16 * 1024 * 1024
"""Bytes of one piece. It travels in one call and is there whole or not at all, so an upload resumes between pieces."""

_AT_ONCE = 8
"""Calls under way at once. The host's connection shares them among a few channels; on each one travels while another is
written."""


@dataclass(frozen=True)
class Piece:
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


def lacking(satellite: Satellite, workdir: str, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Return the artifacts that the host's store lacks. One call."""
    paths = [f"{workdir}/store/{artifact.stored}" for artifact in artifacts]
    found = satellite.read([FileRead(path, 0, 0) for path in paths])
    return [
        artifact
        for artifact, file in zip(artifacts, found, strict=True)
        if not file.exists or (artifact.size is not None and file.size != artifact.size)
    ]


def upload(
    satellite: Satellite, workdir: str, artifacts: Sequence[Artifact], progress: Progress = silent
) -> int:
    """Send fetched artifacts to the host's store; what an earlier try sent is not sent again.

    Args:
        satellite: The host.
        workdir: The profile's working folder there.
        artifacts: What the store lacks.
        progress: Hears of the bytes.

    Returns:
        The bytes that really travelled.

    Raises:
        EnvironmentFailedError: The host's disk is full.
        HostError: The host was lost, or refuses.
    """
    pieces = [piece for artifact in artifacts for piece in pieces_of(artifact)]
    there = satellite.read([FileRead(f"{workdir}/store/{piece.path}", 0, 0) for piece in pieces])
    waiting = [p for p, file in zip(pieces, there, strict=True) if not file.exists or file.size != p.size]
    total = sum(piece.size for piece in waiting)
    for artifact in {piece.artifact.sha256: piece.artifact for piece in waiting}.values():
        satellite.mkdir(f"{workdir}/store/incoming/{artifact.sha256}")
    counter = Counter(progress, "upload", total)

    def send(piece: Piece) -> None:
        try:
            satellite.put(f"{workdir}/store/{piece.path}", piece.data())
        except SatelliteError as error:
            if error.code != "not_found":
                raise
            # Another machine sent the same artifact, and its builder has cleared the pieces away by now.
            satellite.mkdir(f"{workdir}/store/incoming/{piece.artifact.sha256}")
            satellite.put(f"{workdir}/store/{piece.path}", piece.data())
        counter.add(piece.size)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        sent = [pool.submit(send, piece) for piece in waiting]
        try:
            for future in concurrent.futures.as_completed(sent):
                future.result()
        except SatelliteError as error:
            if error.code == "disk_full":
                raise disk_full(satellite, workdir, str(error), total) from error
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return total


def disk_full(satellite: Satellite, workdir: str, said: str, wanted: int) -> EnvironmentFailedError:
    """Return the error that says how full the host's disk is, and what to do."""
    disk = satellite.disk(workdir)
    room = f"{disk.available / 1e6:.0f} MB and {disk.inodes_available} inodes are free at {workdir}"
    return EnvironmentFailedError(
        f"no room for the environment: {said}",
        code="disk_full",
        where=satellite.host.name,
        hint=f"{room}, {wanted / 1e6:.0f} MB are to be sent, and an environment takes about four times as much. "
        "`dg-slurm env prune` removes unused environments; a quota may be smaller than what is free. "
        "Nothing half-made was left.",
    )
