"""Files of this machine as inputs on a host: only what is new travels, cut off anywhere, changed meanwhile."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dagster_slurm_components.data.local import Content, read_content
from dagster_slurm_components.data.provide import Provider
from dagster_slurm_components.data.store import InputStore, Tree
from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError, InputFailedError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead, Received
from dagster_slurm_components.hosts.satellite.submission import _lacking
from dagster_slurm_components.jobs.transfer import PIECE
from dagster_slurm_components.spec.profiles import load_profile_file


@dataclass(frozen=True)
class Counting(Satellite):
    """This machine, which counts the calls and the bytes that travel, and may cut the connection."""

    calls: list[str] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    draw: random.Random = field(default_factory=random.Random)
    cut: float = 0.0

    def read(self, requests: Any, **how: Any) -> list[FileData]:
        self.calls.append("read")
        return super().read(requests, **how)

    def receive(self, data: bytes = b"", **what: Any) -> Received:
        if self.draw.random() < self.cut:
            raise HostUnreachableError("cut off before it")
        found = super().receive(data, **what)
        self.calls.append("receive")
        self.sent.append(len(data))
        if self.draw.random() < self.cut:
            raise HostUnreachableError("cut off after it")
        return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_SLURM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InputStore]:
    yield InputStore(Counting(InProcessHost()), str(tmp_path / "work"))
    for folder, _, _ in os.walk(tmp_path / "work"):
        os.chmod(folder, 0o700)  # pytest removes it


def send(store: InputStore, content: Content) -> Tree:
    return store.send(content, got=lambda size: None, tell=lambda what, size: None)


def sent(store: InputStore) -> int:
    satellite = store.satellite
    assert isinstance(satellite, Counting)
    total = sum(satellite.sent)
    satellite.sent.clear()
    satellite.calls.clear()
    return total


def tree(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def old(path: Path, seconds: float = 100.0) -> None:
    """Let a file have been changed some time ago: what is younger may change again in the same tick."""
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns - int(seconds * 1e9)))


def test_of_a_thousand_files_the_changed_one_travels(tmp_path: Path, store: InputStore) -> None:
    folder = tmp_path / "images"
    for number in range(1000):
        file = folder / f"{number // 100}" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"number {number}")
    first = send(store, read_content(folder, "file:images"))
    assert sent(store) == sum(each.stat().st_size for each in folder.rglob("*.txt"))
    (folder / "3/345.txt").write_text("another")
    second = send(store, read_content(folder, "file:images"))
    assert sent(store) == len("another")
    assert second.key != first.key
    assert tree(Path(second.path)) == tree(folder)
    assert (Path(first.path) / "3/345.txt").read_text() == "number 345"


def test_what_is_there_costs_one_call_and_no_reading(
    tmp_path: Path, store: InputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(b"x" * 5_000_000)
    old(file)
    content = read_content(file, "file:large.bin")
    there = send(store, content)
    sent(store)
    monkeypatch.setattr("dagster_slurm_components.data.local.hash_of", None)  # nobody may call it
    again = read_content(file, "file:large.bin")
    assert store.ready(store.tree(again.key, again.name)) is not None
    satellite = store.satellite
    assert isinstance(satellite, Counting)
    assert satellite.calls == ["read"]
    assert again.key == there.key


def test_of_a_large_file_the_changed_pieces_travel(tmp_path: Path, store: InputStore) -> None:
    file, draw = tmp_path / "model.bin", random.Random(3)
    data = bytearray(draw.randbytes(5 * PIECE + 100))
    file.write_bytes(data)
    old(file)
    send(store, read_content(file, "file:model.bin"))
    assert sent(store) == len(data)
    data[3 * PIECE + 7] ^= 1
    data += b"appended"
    file.write_bytes(data)
    there = send(store, read_content(file, "file:model.bin"))
    assert sent(store) == PIECE + 100 + len(b"appended")
    assert Path(there.path).read_bytes() == data


@pytest.mark.parametrize("seed", range(5))
def test_cut_off_anywhere_it_goes_on(tmp_path: Path, store: InputStore, seed: int) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "large").write_bytes(draw.randbytes(6 * PIECE))
    for number in range(300):
        (folder / str(number)).write_bytes(draw.randbytes(100))
    fragile = InputStore(Counting(InProcessHost(), draw=draw, cut=0.15), store.workdir)
    content, tries = read_content(folder, "file:data"), 0
    while True:
        tries += 1
        assert store.ready(store.tree(content.key, content.name)) is None, "never half there"
        try:
            there = send(fragile, content)
            break
        except HostUnreachableError:
            continue
    assert tree(Path(there.path)) == tree(folder)
    assert sent(fragile) < 2 * content.bytes + tries * 8 * PIECE


def test_a_file_that_changes_on_its_way(tmp_path: Path, store: InputStore) -> None:
    file = tmp_path / "growing"
    file.write_text("begin")
    content = read_content(file, "file:growing")
    file.write_text("begin and more")
    with pytest.raises(DagsterSlurmError, match="growing changed while it was sent"):
        send(store, content)
    assert store.ready(store.tree(content.key, content.name)) is None


@pytest.mark.parametrize("size", [4, PIECE + 4])
def test_nothing_gets_a_place_by_the_hash_of_something_else(
    tmp_path: Path, store: InputStore, size: int
) -> None:
    file = tmp_path / "rewritten"
    file.write_bytes(b"a" * size)
    facts = file.stat()
    content = read_content(file, "file:rewritten")
    with file.open("r+b") as opened:
        opened.write(b"b")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(DagsterSlurmError, match="rewritten changed while it was sent"):
        send(store, content)
    assert store.lacking(content) == list(content.files)
    there = send(store, read_content(file, "file:rewritten"))
    assert Path(there.path).read_bytes() == file.read_bytes()


def test_a_time_that_was_set_back_hides_no_change(tmp_path: Path) -> None:
    file = tmp_path / "unpacked"
    file.write_text("one")
    old(file)
    facts, before = file.stat(), read_content(file, "file:unpacked")
    while file.stat().st_ctime_ns == facts.st_ctime_ns:  # until the clock of the file system has moved
        file.write_text("two")
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert read_content(file, "file:unpacked").key != before.key


def test_steps_that_begin_together_hash_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, hashed = tmp_path / "shared", list[Path]()
    file.write_bytes(b"x" * 1_000_000)
    old(file)
    at_once = threading.Barrier(8)
    monkeypatch.setattr(
        "dagster_slurm_components.data.local.hash_of", lambda path: hashed.append(path) or hash_of(path)
    )

    def read(number: int) -> str:
        at_once.wait()
        return read_content(file, "file:shared").key

    with ThreadPoolExecutor(8) as pool:
        assert len({*pool.map(read, range(8))}) == 1
    assert hashed == [file]


def test_hashes_are_believed_only_of_files_that_rest(tmp_path: Path) -> None:
    file = tmp_path / "young"
    file.write_text("one")
    facts = file.stat()
    first = read_content(file, "file:young")
    file.write_text("two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert read_content(file, "file:young").key != first.key
    old(file)
    before = read_content(file, "file:young")
    assert read_content(file, "file:young") == before
    file.write_text("three")
    after = read_content(file, "file:young")
    assert after.before == {"": before.files[0].sha256}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.symlink_to(path.name), "is not there"),
        (os.mkfifo, "is no file"),
    ],
)
def test_what_can_not_travel(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(DagsterSlurmError, match=message):
        read_content(tmp_path / "x", "file:x")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputFailedError, match="is not there"):
        read_content(tmp_path / ("x" * 300), "file:xxx")


def test_links_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").symlink_to("a")
    assert [(each.name, each.size) for each in read_content(folder, "file:data").files] == [
        ("a", 1),
        ("b", 1),
    ]
    (folder / "loop").symlink_to(folder)
    with pytest.raises(DagsterSlurmError, match="is a link to a folder, which is not followed"):
        read_content(folder, "file:data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("secret")
    (tmp_path / "x").chmod(0)
    with pytest.raises(InputFailedError, match="can't be read"):
        read_content(tmp_path / "x", "file:x")


def test_a_folder_can_not_be_unpacked(tmp_path: Path, store: InputStore) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "profile.yaml").write_text("host: {type: ssh, hostname: h}\nworkdir: /w\n")
    provider = Provider(store, load_profile_file(tmp_path / "profile.yaml"), None, print, lambda: None)
    with pytest.raises(InputFailedError, match="is a folder, and only a file can be unpacked"):
        provider.file("zoo", tmp_path / "folder", "file:folder", unpack=True)


def test_a_mode_is_content(tmp_path: Path, store: InputStore) -> None:
    file = tmp_path / "tool"
    file.write_text("#!/bin/sh\n")
    plain = send(store, read_content(file, "file:tool"))
    file.chmod(0o755)
    program = send(store, read_content(file, "file:tool"))
    assert plain.key != program.key
    assert (os.stat(plain.path).st_mode & 0o777, os.stat(program.path).st_mode & 0o777) == (0o400, 0o500)
    reads = [FileRead(program.mark, 0, 10)]
    assert store.satellite.read(reads)[0].exists


def test_what_was_pruned_meanwhile_is_sent_again(
    tmp_path: Path, store: InputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    file.write_text("content")
    content, call = read_content(file, "file:x"), InputStore.call

    def pruned_first(self: InputStore, action: str, order: Any, **how: Any) -> Any:
        if pruned:
            Path(store.workdir, "data", pruned.pop()).unlink()
        return call(self, action, order, **how)

    pruned = [content.files[0].object]
    monkeypatch.setattr(InputStore, "call", pruned_first)
    assert Path(send(store, content).path).read_text() == "content"
    assert pruned == []


def test_a_submission_keeps_what_it_needs_from_being_pruned(tmp_path: Path, store: InputStore) -> None:
    file = tmp_path / "x"
    file.write_text("content")
    there = send(store, read_content(file, "file:x"))
    past = 1_000_000_000
    os.utime(there.mark, (past, past))
    assert _lacking([there.mark, str(file)]) is None
    assert os.stat(there.mark).st_mtime > past
    os.utime(file, (past, past))
    assert _lacking([str(file)]) is None
    assert os.stat(file).st_mtime == past, "what is not ours stays as it is"
    assert _lacking([f"{tmp_path}/no/.ready"]) == {"outcome": "lacking", "detail": f"{tmp_path}/no/.ready"}
