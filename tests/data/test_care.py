"""Inputs are listed, removed when nobody needs them, and kept within a bound."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from files_server import FilesServer
from satellite_fixture import bundle

from dagster_slurm_components.data.host import care, trees
from dagster_slurm_components.data.host.care import prune, show
from dagster_slurm_components.data.host.fetch import fetch
from dagster_slurm_components.data.host.layout import Layout
from dagster_slurm_components.data.host.unpack import unpack
from dagster_slurm_components.environments.host.tools import Problem
from dagster_slurm_components.hosts.satellite.locks import acquire

DAY = 86400.0


class Inputs:
    """The inputs of a working folder, with a past."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.layout = Layout(str(workdir))
        self.keys: dict[str, str] = {}

    def put(self, content: bytes, age: float = 0.0) -> str:
        digest = hashlib.sha256(content).hexdigest()
        part = Path(os.fsdecode(self.layout.folder(b"incoming")), "part")
        part.write_bytes(content)
        self.layout.admit(os.fsencode(part), "", digest)
        self.set_age(self.object(digest), age)
        return digest

    def object(self, digest: str) -> Path:
        return self.workdir / "data" / "objects" / digest[:2] / digest

    def make(self, name: str, *contents: bytes, used: float | None = None, bound: int | None = None) -> Path:
        """Make an input, which a job began with ``used`` seconds ago."""
        rows = [(str(number), "", self.put(content)) for number, content in enumerate(contents)]
        order = {"workdir": str(self.workdir), "name": name, "source": f"file:{name}", "is_folder": True}
        made = trees.link({**order, "rows": rows, "folders": [], "bound": bound})
        self.keys[name] = made["key"]
        top = self.workdir / "data" / "trees" / str(made["key"])
        if used is not None:
            self.set_age(top / ".ready", used + 1)
            (top / ".used").touch()
            self.set_age(top / ".used", used)
        return top

    @staticmethod
    def set_age(path: Path, seconds: float) -> None:
        os.utime(path, (time.time() - seconds, time.time() - seconds))

    def job(self, name: str, *tops: Path, status: str = "") -> None:
        folder = self.workdir / "runs" / "r" / name / "1"
        folder.mkdir(parents=True)
        (folder / "inputs.trees").write_text("".join(f"{top}\n" for top in tops))
        if status:
            (folder / "status").write_text(status)

    def prune(self, **more: Any) -> Any:
        order = {"keep": [], "unused_for": None, "most": None, "dry_run": False, **more}
        found = prune({"workdir": str(self.workdir), **order})
        return sorted(name for _, name, _ in found["removed"]), found

    def there(self) -> set[str]:
        return {row["name"] for row in show({"workdir": str(self.workdir)})["trees"]}

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.workdir.glob("data/objects/*/*"))


@pytest.fixture
def inputs(workdir: Path) -> Inputs:
    return Inputs(workdir)


def test_where_there_is_nothing_nothing_is_listed(inputs: Inputs):
    assert show({"workdir": str(inputs.workdir)}) == {"trees": [], "bytes": 0, "inodes": 0}
    assert inputs.prune(unused_for=0)[1] == {"removed": [], "kept": {}, "freed": 0}


def test_the_list_tells_of_use_and_counts_each_file_once(inputs: Inputs):
    top = inputs.make("one", b"x" * 100, b"y" * 50, used=3 * DAY)
    inputs.make("two", b"x" * 100)
    inputs.job("step", top, status="restart=0\n")
    found = show({"workdir": str(inputs.workdir)})
    rows = {row["name"]: row for row in found["trees"]}
    assert found["bytes"] == 150
    assert (rows["one"]["bytes"], rows["one"]["count"], rows["one"]["source"]) == (150, 2, "file:one")
    assert (rows["one"]["in_use"], rows["two"]["in_use"]) == (True, False)
    assert abs(time.time() - rows["one"]["used"] - 3 * DAY) < 3600
    assert rows["two"]["used"] == rows["two"]["made"]


def test_the_unused_go_with_the_files_that_only_they_held(inputs: Inputs):
    inputs.make("old", b"x" * 100, b"y" * 50, b"y" * 50, used=3 * DAY)
    inputs.make("new", b"x" * 100, used=60)
    for dry_run in (True, False):
        removed, found = inputs.prune(unused_for=DAY, dry_run=dry_run)
        assert (removed, found["freed"]) == (["old"], 50)
        assert found["kept"] == {inputs.keys["new"]: "used 0.0 days ago"}
        assert inputs.there() == ({"old", "new"} if dry_run else {"new"})
    assert inputs.bytes() == 100
    assert [path.name for path in inputs.workdir.glob("data/trees/*") if ".lock" not in path.name] == [
        inputs.keys["new"]
    ]


def test_to_reach_a_size_the_longest_unused_go_first(inputs: Inputs):
    for number in range(4):
        inputs.make(f"i{number}", bytes([number]) * 100, used=number * DAY)
    assert inputs.prune(most=250)[0] == ["i2", "i3"]
    assert inputs.prune(most=250)[0] == []
    assert inputs.prune()[0] == []
    inputs.make("shared", b"\1" * 100, used=5 * DAY)  # frees nothing, for another holds its file
    removed, found = inputs.prune(most=150)
    assert (removed, found["freed"], inputs.bytes()) == (["i1", "shared"], 100, 100)


@pytest.mark.parametrize(
    ("status", "stays"),
    [
        ("", True),  # it waits in the queue
        ("restart=0\nphase=payload\n", True),
        ("restart=0\nexit=0\n", False),
        ("restart=0\nexit=0\nrestart=1\n", True),
        ("restart=0\nrestart=1\nexit=1\n", False),
    ],
)
def test_what_a_job_names_stays_until_it_has_ended(status: str, stays: bool, inputs: Inputs):
    inputs.job("step", inputs.make("a", b"a", used=9 * DAY), status=status)
    removed, found = inputs.prune(most=0)
    assert removed == ([] if stays else ["a"])
    assert ("a job that has not ended uses it" in found["kept"].values()) == stays


def test_what_is_asked_for_just_now_stays_and_so_does_what_is_to_be_kept(inputs: Inputs):
    inputs.make("kept", b"k", used=9 * DAY)
    inputs.make("asked", b"a", used=9 * DAY)
    inputs.make("asked", b"a")
    removed, found = inputs.prune(unused_for=DAY, keep=[inputs.keys["kept"]])
    assert (removed, set(found["kept"])) == ([], {inputs.keys["kept"], inputs.keys["asked"]})
    assert inputs.prune(unused_for=0)[0] == ["asked", "kept"]


def test_what_is_being_made_stays(inputs: Inputs):
    inputs.make("a", b"a", used=9 * DAY)
    release = acquire(inputs.layout.lock(b"trees", inputs.keys["a"]))
    assert release is not None
    assert inputs.prune(most=0)[0] == []
    release()
    assert inputs.prune(most=0)[0] == ["a"]


def test_what_is_asked_for_while_it_is_decided_stays(inputs: Inputs, monkeypatch: pytest.MonkeyPatch):
    inputs.make("a", b"a", used=9 * DAY)

    def asked_meanwhile(*_: object) -> set[str]:
        inputs.make("a", b"a")
        return set()

    monkeypatch.setattr(care, "in_use", asked_meanwhile)
    removed, found = inputs.prune(unused_for=0)
    assert (removed, list(found["kept"])) == ([], [inputs.keys["a"]])
    assert inputs.there() == {"a"}


def test_what_killed_ones_left_goes_when_it_is_old(inputs: Inputs):
    old, young = inputs.put(b"old", 2 * 3600.0), inputs.put(b"young")
    data = inputs.workdir / "data"
    kept = inputs.make("a", b"a", used=DAY)
    lost = inputs.make("lost", b"lost", used=DAY)
    (lost / ".ready").write_text("")
    paths = [data / "trees" / ".making-1", data / "trees" / ".removing-2", data / "incoming" / "3.d", lost]
    for path in paths[:3]:
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "file").write_bytes(b"12345")
    part = data / "incoming" / "4.part"
    part.write_bytes(b"123")
    records = [Path(os.fsdecode(inputs.layout.record(name))) for name in ("a", "b")]
    records[0].write_text(f'{{"key": "{kept.name}"}}')
    records[1].write_text('{"key": "gone"}')
    assert inputs.prune()[1]["freed"] == 3
    assert all(path.exists() for path in [*paths, part])
    assert [record.exists() for record in records] == [True, False]
    assert [inputs.object(each).exists() for each in (old, young)] == [False, True]
    for path in [*paths, part]:
        inputs.set_age(path, 2 * DAY)
    inputs.prune()
    assert not any(path.exists() for path in [*paths, part])
    assert inputs.there() == {"a"}


def test_a_bound_makes_room_and_never_half(inputs: Inputs):
    inputs.make("old", b"o" * 100, used=2 * DAY)
    inputs.make("newer", b"n" * 100, used=DAY)
    inputs.make("more", b"m" * 100, bound=250)
    assert inputs.there() == {"newer", "more"}
    with pytest.raises(Problem, match="over the bound of 250 bytes") as caught:
        inputs.make("large", b"l" * 200, bound=250)
    assert caught.value.code == "full"
    assert "1 inputs: it was just asked for" in caught.value.detail[0]
    assert inputs.there() == {"newer", "more"}  # nothing was removed in vain
    inputs.make("shared", b"n" * 100, bound=450)  # of another name; its content is here
    assert "newer" in inputs.there()


def test_what_was_just_made_stays_though_the_clock_of_files_is_late(inputs: Inputs):
    inputs.set_age(inputs.make("a", b"a" * 100) / ".ready", 0.02)
    with pytest.raises(Problem, match="over the bound"):
        inputs.make("b", b"b" * 100, bound=150)
    assert inputs.there() == {"a"}


def test_a_download_makes_room_before_it_begins(inputs: Inputs, files: FilesServer):
    inputs.make("old", b"o" * 100, used=2 * DAY)
    order = {
        "workdir": str(inputs.workdir),
        "url": files.serve("/a", b"a" * 100),
        "name": "a",
        "sha256": None,
    }
    order.update(unpack=False, rate=None, most=None, bound=150, fresh=0, at_once=1)
    assert fetch(order)["state"] == "fetched"
    assert inputs.there() == {"a"}
    with pytest.raises(Problem, match="over the bound"):
        fetch({**order, "url": files.serve("/b", b"b" * 100), "name": "b"})
    assert (inputs.there(), inputs.bytes()) == ({"a"}, 100)


def test_what_is_unpacked_stays_within_the_bound(inputs: Inputs):
    inputs.make("other", b"o" * 5000)
    digest = inputs.put(bundle({"a": b"a" * 5000, "b": b"b" * 5000}))
    order = {"workdir": str(inputs.workdir), "name": "a.tar", "sha256": digest, "source": "", "most": None}
    with pytest.raises(Problem) as caught:
        unpack({**order, "bound": 12_000})
    assert (caught.value.code, inputs.there()) == ("full", {"other"})
    assert len(list(inputs.workdir.glob("data/objects/*/*"))) == 2
    assert [path.name for path in inputs.workdir.glob("data/incoming/[!.]*")] == []
    assert unpack({**order, "bound": 15_000})["bytes"] == 10_000


def test_without_hard_links_copies_count(inputs: Inputs, monkeypatch: pytest.MonkeyPatch):
    def no_link(source: bytes, target: bytes) -> None:
        raise PermissionError(1, "Operation not permitted", source)

    monkeypatch.setattr(os, "link", no_link)
    inputs.make("a", b"a" * 100, used=DAY)
    assert show({"workdir": str(inputs.workdir)})["bytes"] == 200
    inputs.set_age(next(inputs.workdir.glob("data/objects/*/*")), DAY)
    assert (inputs.prune()[1]["freed"], inputs.there()) == (100, {"a"})
    assert (inputs.prune(most=0)[1]["freed"], inputs.there()) == (100, set())
