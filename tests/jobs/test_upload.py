"""Files of this machine on a host: cut off anywhere, changed meanwhile, of hostile names, and without room."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sshd_fixture import Sshd

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.main import main
from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.calls import Received
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.jobs.download import Wanted, download
from dagster_slurm_components.jobs.outputs import File
from dagster_slurm_components.jobs.transfer import PIECE
from dagster_slurm_components.jobs.upload import Source, lacking, sources, upload

HERE = Satellite(InProcessHost())


@dataclass(frozen=True)
class Fragile(Satellite):
    """This machine, whose connection is cut again and again, before or after a call was done."""

    draw: random.Random = field(default_factory=lambda: random.Random(11))
    sent: list[int] = field(default_factory=list)

    def receive(self, data: bytes = b"", **what: Any) -> Received:
        if self.draw.random() < 0.2:
            raise HostUnreachableError("cut off before it")
        found = super().receive(data, **what)
        self.sent.append(len(data))
        if self.draw.random() < 0.2:
            raise HostUnreachableError("cut off after it")
        return found


def bring(
    paths: Sequence[Path], folder: Path, satellite: Satellite = HERE, *, force: bool = False
) -> list[Source]:
    folders, files = sources(paths, str(folder))
    waiting = lacking(satellite, files, force=force)
    upload(satellite, folders, waiting)
    return waiting


def tree(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with large and small files, of names that a shell would trip over."""
    folder, draw = tmp_path / "mine", random.Random(2)
    (folder / "sub" / "empty").mkdir(parents=True)
    sizes = {"big": 3 * PIECE + 17, "exact": 2 * PIECE, "two\nlines": 5, "-rf": 0, "sub/a b;$(x)": 70_000}
    for name, size in sizes.items():
        (folder / name).write_bytes(draw.randbytes(size))
    (folder / "\udcff").write_bytes(b"no UTF-8")
    (folder / "exact").chmod(0o750)
    (folder / "sub").chmod(0o755)
    return folder


def test_all_arrives_with_its_mode_and_nothing_is_sent_twice(mine: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert len(bring([mine], there)) == 6
    assert tree(there / "mine") == tree(mine)
    modes = [
        stat.S_IMODE((there / "mine" / name).stat().st_mode) for name in ("exact", "sub", "sub/empty", "..")
    ]
    assert modes[:2] == [0o750, 0o755]
    assert modes[3] == 0o700
    assert (there / "mine/sub/empty").is_dir()
    assert bring([mine], there) == []


def test_a_connection_that_is_cut_again_and_again(mine: Path, tmp_path: Path) -> None:
    there, host, tries = tmp_path / "there", Fragile(InProcessHost()), 0
    while True:
        try:
            bring([mine], there, host)
            break
        except HostUnreachableError:
            tries += 1
            for name, data in tree(there).items():
                assert name.endswith(".part") or data == (tmp_path / name).read_bytes()
    assert tries > 2
    assert tree(there / "mine") == tree(mine)
    assert sum(host.sent) < 2 * sum(len(data) for data in tree(mine).values())


def test_what_is_there_is_replaced_only_by_force(mine: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "mine").mkdir(parents=True)
    (there / "mine/big").write_bytes(b"theirs")
    with pytest.raises(DagsterSlurmError, match=r"there is another .*/mine/big already"):
        bring([mine], there)
    assert tree(there) == {"mine/big": b"theirs"}
    bring([mine], there, force=True)
    assert tree(there / "mine") == tree(mine)
    (mine / "big").unlink()
    (mine / "big").mkdir()
    (mine / "big/x").write_text("x")
    with pytest.raises(DagsterSlurmError, match="mine/big"):
        bring([mine], there, force=True)
    assert (there / "mine/big").is_file()


def test_a_part_of_something_else_is_no_beginning(mine: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    _, files = sources([mine], str(there))
    (there / "mine/sub").mkdir(parents=True)
    for each in files:
        Path(each.part).write_bytes(b"other" * PIECE)
    bring([mine], there)
    assert tree(there / "mine") == tree(mine)


@dataclass(frozen=True)
class Shared(Satellite):
    """This machine, where somebody else puts the same file in its place in the middle of it, or just before its end."""

    middle: bool = True
    told: list[str] = field(default_factory=list)

    def receive(self, data: bytes = b"", **what: Any) -> Received:
        pieces, whole = what.get("pieces", ()), what.get("whole", ())
        parts = [row[0] for row in (pieces if self.middle else () if pieces else whole)]
        for part in parts:
            if not self.told and os.path.lexists(part):
                with contextlib.suppress(FileNotFoundError):  # another call of this very upload did it
                    os.replace(part, f"{os.path.dirname(part)}/big")
                self.told.append(part)
        return super().receive(data, **what)


@pytest.mark.parametrize("middle", [True, False])
def test_two_who_bring_the_same_at_once(mine: Path, tmp_path: Path, middle: bool) -> None:
    host = Shared(InProcessHost(), middle=middle)
    folders, files = sources([mine / "big"], str(tmp_path / "there"))
    upload(host, folders, files)
    assert host.told
    assert tree(tmp_path / "there") == {"big": (mine / "big").read_bytes()}


@pytest.mark.parametrize("name", ["big", "two\nlines"])
@pytest.mark.parametrize("now", ["gone", "longer", "shorter", "other"])
def test_a_file_that_changes_meanwhile(mine: Path, tmp_path: Path, name: str, now: str) -> None:
    there = tmp_path / "there"
    folders, files = sources([mine / name], str(there))
    file = mine / name
    if now == "gone":
        file.unlink()
    elif now == "other":
        file.write_bytes(b"x" * file.stat().st_size)
    else:
        os.truncate(file, file.stat().st_size + (5 if now == "longer" else -1))
    with pytest.raises(DagsterSlurmError, match=r"can't be read any more|changed while it was sent") as error:
        upload(HERE, folders, files)
    assert "\n" not in error.value.message
    assert not (there / name).exists()


def test_links(mine: Path, tmp_path: Path) -> None:
    (mine / "good").symlink_to("big")
    (tmp_path / "named").symlink_to("mine")
    bring([tmp_path / "named"], tmp_path / "there")
    assert (tmp_path / "there/named/good").read_bytes() == (mine / "big").read_bytes()
    for target, text in {
        "loop": "can't be read",
        ".": "a link to a folder",
        "nowhere": "can't be read",
    }.items():
        (mine / "loop").unlink(missing_ok=True)
        (mine / "loop").symlink_to(target)
        with pytest.raises(DagsterSlurmError, match=text):
            sources([mine], "/there")
    (mine / "loop").unlink()
    os.mkfifo(mine / "pipe")
    with pytest.raises(DagsterSlurmError, match="is no file"):
        sources([mine], "/there")
    with pytest.raises(DagsterSlurmError, match="two files are called x"):
        sources([tmp_path / "x", mine / "x"], "/there")


def test_no_room_and_no_right_to_write(mine: Path, small: Path) -> None:
    with pytest.raises(DagsterSlurmError, match="No space left on device") as error:
        bring([mine], small / "there")
    assert "Make room" in str(error.value)
    assert all(name.endswith(".part") or data == (mine / name).read_bytes()
               for name, data in tree(small / "there/mine").items())  # fmt: skip
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(DagsterSlurmError, match="Read-only file system"):
        bring([mine], small / "other")


def test_the_command(mine: Path, tmp_path: Path) -> None:
    def put(*args: str, status: int = 0) -> str:
        done = CliRunner().invoke(main, ["put", *args])
        assert done.exit_code == status, done.output + str(done.exception)
        return done.output

    assert put(str(mine / "big"), f"{tmp_path}/a") == f"{tmp_path}/a/big\t6.0 MiB\n"
    assert (
        put(str(mine / "big"), f"local:{tmp_path}/a", "--profile", "local")
        == "1 of 1 files were there already\n"
    )
    assert '"state": "there"' in put(str(mine / "big"), f"local:{tmp_path}/a", "--json")
    assert "is no folder on a host" in put(str(mine / "big"), "there", status=1)
    assert "Two profiles are named" in put(
        str(mine / "big"), "local:/there", "--profile", "staging", status=2
    )


def test_lost_connections_are_waited_for_both_ways(
    sshd: Sshd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, there, back = tmp_path / "mine", tmp_path / "there", tmp_path / "back"
    data = random.Random(4).randbytes(24 * PIECE + 3)
    mine.write_bytes(data)
    host = RemoteHost(SshDialer(sshd.spec()), interval=0.1)
    state = {"bytes": 0, "cuts": 0}

    def got(size: int) -> None:
        state["bytes"] += size
        if state["bytes"] > (state["cuts"] + 1) * 6 * PIECE and state["cuts"] < 3:
            state["cuts"] += 1
            sshd.cut()

    try:
        folders, files = sources([mine], str(there))
        with terminal.patient(Satellite(host)) as satellite:
            upload(satellite, folders, files, got=got)
            assert (there / "mine").read_bytes() == data
            assert state["cuts"] == 3
            state.update(bytes=0, cuts=0)
            wanted = Wanted(File("mine", len(data), None), str(there), back)
            download(satellite, [wanted], back, got=got)
    finally:
        host.close()
    assert state["cuts"] == 3
    assert (back / "mine").read_bytes() == data
    told = capsys.readouterr().err
    assert "This transfer waits for the host" in told
    assert "The host answers again" in told


def test_a_host_that_stays_away_ends_it(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PATIENCE", 0.3)
    (tmp_path / "mine").write_bytes(bytes(4 * PIECE))
    host = RemoteHost(SshDialer(sshd.spec()), interval=0.1)
    folders, files = sources([tmp_path / "mine"], str(tmp_path / "there"))
    try:
        with pytest.raises(HostUnreachableError), terminal.patient(Satellite(host)) as satellite:
            upload(satellite, folders, files, got=lambda size: sshd.stop())
    finally:
        host.close()
    assert not (tmp_path / "there/mine").exists()
