"""Files of a host on this machine: interrupted anywhere, of hostile names, beside what is there already."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outputs_fixture import RunDirectory, run_directory

from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead
from dagster_slurm_components.jobs.download import Wanted, download, plan, read_outputs
from dagster_slurm_components.jobs.outputs import Made, parse_file, parse_made


@dataclass(frozen=True)
class Fragile(Satellite):
    """This machine, whose connection is cut again and again, also within an answer."""

    draw: random.Random = field(default_factory=lambda: random.Random(3))

    def fetch(self, requests: Sequence[FileRead], *, total: int) -> list[FileData]:
        if self.draw.random() < 0.4:
            raise HostUnreachableError("cut off")
        fewer = [
            FileRead(each.path, each.offset, self.draw.randint(0, min(each.limit, 5000))) for each in requests
        ]
        return super().fetch(fewer, total=total)


@pytest.fixture
def there(tmp_path: Path) -> RunDirectory:
    return run_directory(tmp_path / "run")


def collected(there: RunDirectory) -> Made:
    there.collect({"out": "out"})
    (made,) = read_outputs(Satellite(InProcessHost()), str(there.path))
    return made


def bring(
    made: Made, folder: Path, satellite: Satellite | None = None, *, force: bool = False
) -> list[Wanted]:
    missing, _ = plan(made, folder, force=force)
    download(satellite or Satellite(InProcessHost()), missing, folder)
    return missing


def test_a_connection_that_is_cut_again_and_again(there: RunDirectory, tmp_path: Path) -> None:
    draw = random.Random(5)
    for number in range(40):
        there.file(f"out/{number % 3}/{number}", draw.randbytes(draw.choice([0, 1, 4096, 30_000])))
    made, here, host = collected(there), tmp_path / "here", Fragile(InProcessHost())
    tries = 0
    while True:
        try:
            bring(made, here, host)
            break
        except HostUnreachableError:
            tries += 1
    assert tries > 3
    for file in made.files:
        assert (here / file.name).read_bytes() == (there.payload / "out" / file.name).read_bytes()
    assert len([each for each in here.rglob("*") if each.is_file()]) == 40
    assert plan(made, here, force=False)[0] == []


def test_more_files_than_the_answer_lists(there: RunDirectory, tmp_path: Path) -> None:
    for number in range(1200):
        there.file(f"out/{number}", str(number))
    made = collected(there)
    assert len(made.files) == 1200
    assert len(bring(made, tmp_path / "here")) == 1200


def test_what_an_earlier_try_had_was_of_something_else(there: RunDirectory, tmp_path: Path) -> None:
    there.file("out/a", "right" * 1000)
    made, here = collected(there), tmp_path / "here"
    ((wanted,), _) = plan(made, here, force=False)
    here.mkdir()
    wanted.part.write_text("wrong")
    bring(made, here)
    assert (here / "a").read_text() == "right" * 1000


@pytest.mark.parametrize("now", ["gone", "other", "longer"])
def test_a_file_that_has_changed_since(there: RunDirectory, tmp_path: Path, now: str) -> None:
    file = there.file("out/a", "first")
    made, here = collected(there), tmp_path / "here"
    if now == "gone":
        file.unlink()
    else:
        file.write_text("other" if now == "other" else "first and more")
    with pytest.raises(DagsterSlurmError, match="is not what it was when its job ended"):
        bring(made, here)
    assert not (here / "a").exists()


def test_what_is_here_is_replaced_only_by_force(there: RunDirectory, tmp_path: Path) -> None:
    there.file("out/a", "new")
    there.file("out/b", "same")
    made, here = collected(there), tmp_path / "here"
    here.mkdir()
    (here / "a").write_text("old")
    (here / "b").write_text("same")
    with pytest.raises(DagsterSlurmError, match=r"there is another .*/a already"):
        bring(made, here)
    assert (here / "a").read_text() == "old"
    assert [each.file.name for each in bring(made, here, force=True)] == ["a"]
    assert (here / "a").read_text() == "new"


def test_no_link_leads_out_of_the_folder(there: RunDirectory, tmp_path: Path) -> None:
    there.file("out/sub/a")
    made, here = collected(there), tmp_path / "here"
    here.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (here / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DagsterSlurmError, match="leads out of"):
        bring(made, here)
    assert not list((tmp_path / "elsewhere").iterdir())


@given(st.text(st.sampled_from("a./\0\n\udcff"), max_size=12))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        file = parse_file(name, 1, None)
    except ValueError:
        return
    path = os.path.normpath(f"/top/{file.name}")
    assert path.startswith("/top/")
    assert path == f"/top/{name}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_any_answer_is_read_or_none(value: object) -> None:
    for each in (value, {"outputs": value}, {"outputs": [value]}):
        assert parse_made(json.dumps(each).encode(), "/run") == ()
    assert parse_made(repr(value).encode("utf-8", "replace"), "/run") == ()
