"""A second user in one workdir is told whose it is."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from satellite_fixture import FakeSlurm, bundle

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite

NOBODY = 65534
TOLD = "belongs to root, and this login is nobody's: a workdir has one owner, so name one of your own in the profile"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def workdir() -> Iterator[Path]:
    """A workdir of root's; pytest's own folders are closed above it."""
    with tempfile.TemporaryDirectory(prefix="dg-slurm-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def refused(local: Satellite, path: Path) -> SatelliteError:
    with as_nobody(), pytest.raises(SatelliteError) as caught:
        local.mkdir(str(path), str(path.parent))
    assert caught.value.code == "not_permitted"
    return caught.value


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_folder_of_another_s_is_told_with_its_owner(local: Satellite, workdir: Path, mode: int) -> None:
    workdir.chmod(mode)
    said = str(refused(local, workdir / "runs" / "r1"))
    assert f"{workdir}/runs: Permission denied. {workdir} {TOLD}" in said


def test_so_it_is_of_folders_in_it_files_and_submissions(
    local: Satellite, slurm: FakeSlurm, workdir: Path
) -> None:
    local.put(str(workdir / "file"), b"x")
    request = slurm.request(workdir)
    local.mkdir(str(workdir / "runs"), str(workdir))
    assert f"{workdir}/runs {TOLD}" in str(refused(local, workdir / "runs" / "r1"))
    with as_nobody(), pytest.raises(SatelliteError, match=f"{workdir}/runs {TOLD}"):
        local.submit(request, bundle({"job.sh": "true"}))
    with as_nobody(), pytest.raises(SatelliteError, match=f"{workdir} {TOLD}"):
        local.put(str(workdir / "file"), b"y")
    with as_nobody(), pytest.raises(SatelliteError, match=f"{workdir}/runs {TOLD}"):
        local.attempts(str(workdir / "runs" / "r1" / "step"))
    assert slurm.jobs() == []


def test_a_folder_of_one_s_own_that_is_closed_is_not_said_to_be_another_s(
    local: Satellite, workdir: Path
) -> None:
    os.chown(workdir, NOBODY, NOBODY)
    workdir.chmod(0o500)
    assert str(refused(local, workdir / "runs")).endswith("runs: Permission denied")


def test_a_user_without_a_name_is_told_by_number(local: Satellite, workdir: Path) -> None:
    os.chown(workdir, 4_000_000, 4_000_000)
    assert "belongs to the user with id 4000000" in str(refused(local, workdir / "runs"))


@pytest.mark.parametrize("child", ["runs", "runs/r1", "runs/r1/step"])
def test_a_folder_that_another_user_laid_out_is_refused(
    local: Satellite, slurm: FakeSlurm, workdir: Path, child: str
) -> None:
    """Whoever owns it could rename it while the job waits, and put another ``job.sh`` there."""
    (workdir / child).mkdir(parents=True)
    os.chown(workdir / child, NOBODY, NOBODY)
    with pytest.raises(
        SatelliteError, match=f"{workdir / child}: another user could change what is made there"
    ):
        local.submit(slurm.request(workdir), bundle({"job.sh": "true"}))
    assert slurm.jobs() == []


def test_a_link_is_refused_below_the_workdir_and_the_workdir_itself_may_be_one(
    local: Satellite, slurm: FakeSlurm, workdir: Path
) -> None:
    link = workdir / "scratch"
    link.symlink_to(workdir / "real")
    (workdir / "real").mkdir(mode=0o700)
    assert local.submit(slurm.request(link), bundle({"job.sh": "true"})).outcome == "submitted"
    (workdir / "other").mkdir()
    (workdir / "other" / "runs").symlink_to(workdir / "real")
    with pytest.raises(SatelliteError, match="runs: a link, where a folder of our own must be"):
        local.submit(slurm.request(workdir / "other"), bundle({"job.sh": "true"}))
    assert len(slurm.jobs()) == 1


def test_a_folder_that_others_may_write_to_is_refused(
    local: Satellite, slurm: FakeSlurm, workdir: Path
) -> None:
    workdir.chmod(0o775)
    with pytest.raises(SatelliteError, match=r"others may write there \(mode 0775\).*`chmod go-w` it"):
        local.submit(slurm.request(workdir), bundle({"job.sh": "true"}))
    assert slurm.jobs() == []
