"""The program pixi-pack: its documented command line, and a stand-in, as neither PyPI nor Debian has the program."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest
from conda_fixture import SUBDIR, make_channel, write_lock

from dagster_slurm_components.environments.content import Platform
from dagster_slurm_components.environments.pixi import fetch_packages, pack_arguments, read_lock
from dagster_slurm_components.errors import EnvironmentFailedError

pytestmark = pytest.mark.usefixtures("own_cache")
LINUX = Platform("linux", "x86_64" if SUBDIR == "linux-64" else SUBDIR.partition("-")[2], "glibc", (2, 31))

STAND_IN = """#!{python}
import shutil, sys
open({log!r}, "a").write(repr(sys.argv[1:]) + "\\n")
if {broken!r}:
    sys.exit("  x channel is not reachable")
shutil.copyfile({archive!r}, sys.argv[sys.argv.index("--output-file") + 1])
"""


def test_the_command_line_is_that_of_pixi_pack_0_7(own_cache: Path):
    argv = pack_arguments("/opt/bin/pixi-pack", Path("/p/a b"), "gpu", "linux-64", Path("/t/environment.tar"))
    assert argv == [
        "/opt/bin/pixi-pack",
        "--environment",
        "gpu",
        "--platform",
        "linux-64",
        "--output-file",
        "/t/environment.tar",
        "--use-cache",
        f"{own_cache}/pixi-pack",
        "--ignore-pypi-non-wheel",
        "/p/a b",
    ]


def project_elsewhere(tmp_path: Path) -> tuple[Path, Path]:
    """Return a project whose lock names a channel that can't be reached, and an archive of its packages."""
    channel = make_channel(tmp_path / "channel")
    project = write_lock(tmp_path / "my study", channel)
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        for package in channel.values():
            archive.add(package, f"channel/{package.parent.name}/{package.name}")
    lock = project / "pixi.lock"
    lock.write_text(lock.read_text().replace((tmp_path / "channel").as_uri(), "https://conda.invalid/forge"))
    for path in (tmp_path / "cache" / "files").glob("*/*"):
        path.unlink()
    return project, tmp_path / "packed.tar"


def put_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: Path, *, broken: bool = False
) -> Path:
    folder, log = tmp_path / "bin", tmp_path / "called"
    folder.mkdir()
    text = STAND_IN.format(python=sys.executable, log=str(log), broken=broken, archive=str(archive))
    (folder / "pixi-pack").write_text(text)
    (folder / "pixi-pack").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


def test_packages_that_only_pixi_s_own_logins_reach_come_by_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    project, archive = project_elsewhere(tmp_path)
    log = put_on_path(tmp_path, monkeypatch, archive)
    locked = read_lock(project / "pixi.lock", "default", LINUX)
    found = fetch_packages(project, "default", SUBDIR, locked.conda)
    assert [(item.name, item.sha256) for item in found] == [(i.name, i.sha256) for i in locked.conda]
    fetch_packages(project, "default", SUBDIR, locked.conda)
    assert len(log.read_text().splitlines()) == 1  # they are in the cache now


def test_what_the_program_brings_is_held_against_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project, archive = project_elsewhere(tmp_path)
    put_on_path(tmp_path, monkeypatch, archive)
    data = archive.read_bytes()
    at = data.index(b"BZh")  # a package's first bytes
    archive.write_bytes(data[: at + 20] + bytes([data[at + 20] ^ 1]) + data[at + 21 :])
    locked = read_lock(project / "pixi.lock", "default", LINUX)
    with pytest.raises(EnvironmentFailedError, match="can't be fetched"):
        fetch_packages(project, "default", SUBDIR, locked.conda)


def test_the_program_s_own_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project, archive = project_elsewhere(tmp_path)
    put_on_path(tmp_path, monkeypatch, archive, broken=True)
    locked = read_lock(project / "pixi.lock", "default", LINUX)
    with pytest.raises(EnvironmentFailedError, match="channel is not reachable"):
        fetch_packages(project, "default", SUBDIR, locked.conda)
