"""What a job tells of its outputs is read with the last look at its files, and only where it says that it did."""

from __future__ import annotations

import json

import pytest
from watch_fixture import STARTED, World, events, handle

from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead
from dagster_slurm_components.jobs.events import Ended, Output, Part
from dagster_slurm_components.jobs.outputs import MADE
from dagster_slurm_components.slurm.queue import parse_squeue

FILES = [[f"a file of some length, number {number}", 1, "0" * 64] for number in range(1000)]
TOLD = {
    "name": "out",
    "path": "out",
    "root": "payload/out",
    "single": False,
    "count": 5000,
    "bytes": 5000,
    "hash": "0" * 64,
    "files": FILES * 3,
    "published": False,
    "error": None,
    "notes": [],
    "where": "",
    "asset": None,
}
ANSWER = json.dumps({"outputs": [TOLD]}).encode()


@pytest.fixture
def reads(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read."""
    seen: list[str] = []
    one = world.files._one

    def read(request: FileRead) -> FileData:
        seen.append(request.path)
        return one(request)

    monkeypatch.setattr(world.files, "_one", read)
    return seen


@pytest.mark.parametrize("part", [Part.JOB, Part.ELEMENT])
def test_it_is_read_once_the_job_has_ended(world: World, reads: list[str], part: Part) -> None:
    assert len(ANSWER) > 256 * 1024, "more than one look takes"
    watch = world.watcher.watch(handle(), part=part)
    world.files.append("/runs/1/status", STARTED)
    world.step()
    world.files.append(f"/runs/1/{MADE}", ANSWER)
    world.run(10)
    assert f"/runs/1/{MADE}" not in reads
    world.files.append("/runs/1/status", b"outputs=made\nexit=0\n")
    world.run(10)
    *before, ended = events(watch)
    assert isinstance(ended, Ended)
    (made,) = ended.made
    assert (made.root, made.count, len(made.files)) == ("/runs/1/payload/out", 5000, 3000)
    assert not [each for each in before if isinstance(each, Output) and each.data]


def test_it_is_not_looked_for_where_a_job_has_no_outputs(world: World, reads: list[str]) -> None:
    watch = world.watcher.watch(handle())
    world.files.append("/runs/1/status", STARTED + b"exit=0\n")
    world.run(10)
    assert isinstance(events(watch)[-1], Ended)
    assert f"/runs/1/{MADE}" not in reads


def test_the_job_says_so_with_the_last_look_at_its_status(world: World) -> None:
    """Slurm tells of an end before the file system does."""
    watch = world.watcher.watch(handle(), part=Part.ELEMENT)
    world.files.append("/runs/1/status", STARTED)
    world.step()
    world.queue.rows = parse_squeue("1|COMPLETED|1|0|1|None|\n")
    while not watch.observation.terminal:
        world.step()
    world.files.append("/runs/1/status", b"outputs=made\nexit=0\n")
    world.files.append(f"/runs/1/{MADE}", ANSWER)
    world.run(10)
    ended = events(watch)[-1]
    assert isinstance(ended, Ended)
    assert [each.name for each in ended.made] == ["out"]
