"""Copies of files that grow: what is brought, and what not, however the files change in between."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.jobs import mirror
from dagster_slurm_components.jobs.mirror import Mirror

HOSTILE = ["a b", "two\nlines", "ünï", "; touch hacked $(touch hacked) `x`", "-rf", "'\"\\", "*", "\udcff"]


class Counting(InProcessHost):
    """This machine, which counts the bytes that it is asked for, and may be lost."""

    def __init__(self) -> None:
        self.bytes = 0
        self.calls: list[str] = []
        self.lost_after: float = float("inf")

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        if len(self.calls) >= self.lost_after:
            raise HostUnreachableError("lost", where="here")
        self.calls.append(op)
        reply = super().call(op, params, blob, timeout=timeout)
        self.bytes += len(reply.blob)
        return reply


@dataclass
class Both:
    """A payload's folder, and the copies of it."""

    there: Path
    here: Path
    host: Counting

    def mirror(self, pattern: str = "**", most: int = 2**30) -> Mirror:
        return Mirror(Satellite(self.host), str(self.there), pattern, self.here, most)

    def equal(self) -> bool:
        return contents(self.there) == contents(self.here)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def both(tmp_path: Path) -> Both:
    made = Both(tmp_path / "payload", tmp_path / "here", Counting())
    made.there.mkdir()
    return made


def test_only_what_was_added_comes(both: Both) -> None:
    (both.there / "log").write_bytes(os.urandom(100_000))
    (both.there / "empty").touch()
    seen = both.mirror()
    assert seen.look(Event()).changed == {"log", "empty"}
    assert both.equal()
    before = both.host.bytes
    with (both.there / "log").open("ab") as file:
        file.write(b"x" * 10)
    assert seen.look(Event()).changed == {"log"}
    assert both.equal()
    assert both.host.bytes - before < 10_000
    both.host.calls.clear()
    assert not seen.look(Event()).changed
    assert both.host.calls == ["matches"], "nothing has changed: one call"


def test_another_process_goes_on(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(5_000_000)
    (both.there / "log").write_bytes(data)
    monkeypatch.setattr(mirror, "_LOOK", 3_000_000)
    both.mirror().look(Event())
    assert 0 < (both.here / "log").stat().st_size < len(data)
    before = both.host.bytes
    both.mirror().look(Event())
    assert both.equal()
    assert both.host.bytes - before < len(data) - 2_900_000


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_bytes(b"new and short"),
        lambda file: file.write_bytes(b"n" * 20_000),
        lambda file: os.truncate(file, 50),
        lambda file: (file.rename(f"{file}.1"), file.write_bytes(b"rotated" * 9000)),
        lambda file: (file.unlink(), file.write_bytes(b"another" * 9000)),
    ],
    ids=["shorter", "longer", "cut", "rotated", "replaced"],
)
def test_what_does_not_go_on_is_brought_anew(both: Both, change: Any, *, restarted: bool) -> None:
    file = both.there / "log"
    file.write_bytes(random.Random(1).randbytes(10_000))
    seen = both.mirror()
    seen.look(Event())
    old = (both.here / "log").open("rb")
    change(file)
    (both.mirror() if restarted else seen).look(Event())
    assert both.equal()
    with old:
        assert len(old.read()) in (10_000, file.stat().st_size), "whoever reads the old copy may go on"


def test_a_change_in_the_middle_is_seen_at_once_or_at_the_end(both: Both) -> None:
    file = both.there / "db"
    file.write_bytes(bytes(100_000))
    seen = both.mirror()
    seen.look(Event())
    with file.open("r+b") as database:
        database.seek(50_000)
        database.write(b"changed")
    os.utime(file, ns=(1, 1))
    assert seen.look(Event()).changed == {"db"}
    assert both.equal()
    with file.open("r+b") as database:
        database.seek(50_000)
        database.write(b"and again")
        database.seek(0, os.SEEK_END)
        database.write(b"more")
    seen.look(Event())
    assert not both.equal(), "the beginning and the end alone are compared"
    assert seen.look(Event(), last=True).changed == {"db"}
    assert both.equal()
    assert not seen.look(Event(), last=True).changed


def test_names_of_all_kinds(both: Both, tmp_path: Path) -> None:
    for name in HOSTILE:
        folder = both.there / os.fsdecode(os.fsencode(name))
        folder.mkdir()
        (folder / os.fsdecode(os.fsencode(f"in {name}"))).write_text(name.encode("utf-8", "replace").decode())
    both.mirror().look(Event(), last=True)
    assert both.equal()
    assert len(contents(both.here)) == len(HOSTILE)
    assert not (tmp_path / "hacked").exists()


def test_links_out_of_the_folder_are_not_followed(both: Both, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/x").write_text("secret")
    (both.there / "real").write_text("real")
    (both.there / "inner").symlink_to("real")
    (both.there / "out").symlink_to(tmp_path / "secret")
    (both.there / "outs").symlink_to(tmp_path / "secrets")
    (both.there / "loop").symlink_to("loop")
    os.mkfifo(both.there / "pipe")
    both.mirror().look(Event(), last=True)
    assert contents(both.here) == {"real": b"real", "inner": b"real"}


def test_a_link_here_leads_nowhere(both: Both, tmp_path: Path) -> None:
    (both.there / "sub").mkdir()
    (both.there / "sub/x").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    both.here.mkdir()
    (both.here / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DagsterSlurmError, match="leads out of"):
        both.mirror().look(Event())
    assert not contents(tmp_path / "elsewhere")


def test_not_more_than_max(both: Both) -> None:
    (both.there / "a").write_bytes(b"a" * 600)
    (both.there / "b").write_bytes(b"b" * 900)
    seen = both.mirror(most=1000)
    assert seen.look(Event()).full
    assert contents(both.here) == {"a": b"a" * 600, "b": b"b" * 400}
    (both.there / "a").write_bytes(b"other" * 200)
    for last in (False, True):
        assert both.mirror(most=1000).look(Event(), last=last).full, "what is here counts"
        assert contents(both.here) == {"a": b"a" * 600, "b": b"b" * 400}, (
            "what there is no room for stays as it was"
        )
    assert not both.mirror(most=5000).look(Event(), last=True).full
    assert both.equal()


def test_not_more_files_than_may_be(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (both.there / str(number)).touch()
    monkeypatch.setattr(mirror, "_FILES", 19)
    with pytest.raises(SatelliteError, match=r"\*\* stands for more than 19 files: narrow it"):
        both.mirror().look(Event())
    monkeypatch.setattr(mirror, "_FILES", 20)
    monkeypatch.setattr(mirror, "_ENTRIES", 19)
    with pytest.raises(SatelliteError, match="more than 19 files and folders to look at"):
        both.mirror().look(Event())
    assert not both.here.exists()


def test_a_lost_host_costs_nothing_that_has_come(both: Both) -> None:
    (both.there / "log").write_bytes(os.urandom(9_000_000))
    both.host.lost_after = 3
    seen = both.mirror()
    with pytest.raises(HostUnreachableError):
        seen.look(Event())
    came = (both.here / "log").stat().st_size
    assert came > 0
    both.host.lost_after, before = float("inf"), both.host.bytes
    seen.look(Event())
    assert both.equal()
    assert both.host.bytes - before < 9_000_000 - came + 20_000


def test_it_stops_between_two_calls(both: Both) -> None:
    (both.there / "log").write_bytes(os.urandom(9_000_000))
    stop = Event()
    stop.set()
    both.mirror().look(stop, last=True)
    assert both.host.calls == ["matches"]


def test_no_folder_is_no_error(both: Both) -> None:
    both.there.rmdir()
    assert both.mirror("wandb/offline-run-*").look(Event(), last=True).changed == set()
    assert not both.here.exists()


def test_any_changes_end_in_equal_files(both: Both) -> None:
    draw = random.Random(11)
    seen = both.mirror()
    for _ in range(150):
        file = both.there / draw.choice("abcd")
        match draw.randrange(6):
            case 0:
                file.unlink(missing_ok=True)
                (both.here / file.name).unlink(missing_ok=True)
            case 1:
                file.write_bytes(draw.randbytes(draw.randrange(9000)))
            case 2 if file.exists():
                os.truncate(file, draw.randrange(file.stat().st_size + 1))
            case 3 if file.exists():
                with file.open("r+b") as stream:
                    stream.seek(draw.randrange(file.stat().st_size + 1))
                    stream.write(b"middle")
            case _:
                with file.open("ab") as stream:
                    stream.write(draw.randbytes(draw.randrange(5000)))
        if draw.random() < 0.3:
            seen = both.mirror()
        last = draw.random() < 0.2
        seen.look(Event(), last=last)
        if last:
            assert both.equal()
