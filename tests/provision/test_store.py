"""Uploads: pieces, and what is there already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from subprocess_dialer import SubprocessDialer

from dagster_slurm_components.environments import store
from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.hosts import remote
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost


@pytest.fixture
def satellite() -> Iterator[Satellite]:
    host = RemoteHost(SubprocessDialer())
    yield Satellite(host)
    host.close()


def artifact(tmp_path: Path, size: int) -> Artifact:
    path = tmp_path / f"file-{size}"
    path.write_bytes(os.urandom(size))
    return Artifact(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), size, "wheel", path=str(path))


@pytest.mark.parametrize(("size", "pieces"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (3000, 3)])
def test_pieces_make_the_whole(size: int, pieces: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "PIECE", 1000)
    whole = artifact(tmp_path, size)
    found = store.pieces_of(whole)
    assert len(found) == pieces
    assert b"".join(piece.data() for piece in found) == Path(whole.path or "").read_bytes()


def test_pieces_travel_together_and_none_is_sent_twice(
    satellite: Satellite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "PIECE", 100_000)
    monkeypatch.setattr(remote, "LARGE", 100_000)  # a large call, so that further channels open
    whole, workdir = artifact(tmp_path, 2_050_000), str(tmp_path / "work")
    whole_store = store.Store(satellite, workdir)
    seen: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))

    assert whole_store.upload([whole], progress) == 2_050_000
    incoming = Path(workdir, "store", "incoming", whole.sha256)
    sent = b"".join((incoming / str(number)).read_bytes() for number in range(21))
    assert hashlib.sha256(sent).hexdigest() == whole.sha256
    assert seen[0] == ("upload", 0, 2_050_000)
    assert max(done for _, done, _ in seen) == 2_050_000
    assert whole_store.upload([whole]) == 0
    (incoming / "7").unlink()
    (incoming / "9").write_bytes(b"cut off")
    assert whole_store.upload([whole]) == 200_000
    # It is in the store only once the builder has seen that it is what it should be.
    assert whole_store.lacking([whole]) == [whole]
