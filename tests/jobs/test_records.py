"""All run directories of a host, as their own files tell of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from satellite_fixture import local  # noqa: F401

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite import leases
from dagster_slurm_components.jobs.lease import COLLECTED
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.records import RunDirectory, run_directories
from dagster_slurm_components.jobs.target import Target

OWNER = {"run_id": "retry-of-it", "node": "n", "pid_namespace": "", "pid": 1, "start": "s"}


def at(satellite: Satellite, workdir: Path) -> Target:
    """Return a place of which only the files count."""
    return Target(satellite, None, None, str(workdir))  # type: ignore[arg-type]


def make(workdir: Path, identity: JobIdentity, *, job: str = "12", lease: str | None = "") -> Path:
    """Make a run directory as the satellite does; ``lease`` is its text, where it is not the usual one."""
    folder = workdir / identity.folder
    folder.mkdir(parents=True)
    (folder / "ledger").write_text(f"token={identity.token}\nintent=5\njob_id={job}\nsubmitted=6\n")
    if lease is not None:
        usual = leases._new(identity.token, "d", "c", OWNER, {})
        (folder / "lease").write_text(lease or json.dumps({**usual, "state": "collected"}))
    return folder


def test_each_is_told_with_what_its_path_says(tmp_path: Path, local: Satellite) -> None:  # noqa: F811
    identities = [
        JobIdentity("run-1", "train"),
        JobIdentity("run-1", "train", attempt=1),
        JobIdentity("run-1", "train", call=2),
        JobIdentity("run-1", "train", "2026", attempt=3),
        JobIdentity("run-1", "train", "2026", attempt=3, call=14),
    ]
    for identity in identities:
        make(tmp_path, identity)
    found = run_directories(at(local, tmp_path))
    told = {JobIdentity(each.run_id, each.step, each.partition, each.attempt, each.call) for each in found}
    assert told == set(identities)
    assert all(each.lease.state == COLLECTED and each.collected for each in found)


@pytest.mark.parametrize(
    "path",
    [
        "0/payload/ledger",
        "0/payload/7/ledger",
        "checkpoint/7/8/ledger",
        "call=1/0/payload/ledger",
        "2026/0/payload/ledger",
        "0/²/ledger",
        "²/ledger",
    ],
)
def test_a_file_of_that_name_elsewhere_is_no_run_directory(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    path: str,
) -> None:
    """It would be removed in the middle of a payload's folder."""
    folder = make(tmp_path, JobIdentity("run-1", "train"))
    other = folder.parent / path
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text("of the payload\n")
    assert [each.path for each in run_directories(at(local, tmp_path))] == [str(folder)]


@pytest.mark.parametrize("text", ['{"version": 1, "epo', "[]", "7", '{"version": 2}', '{"version": 1}'])
def test_a_lease_that_can_not_be_read_hides_nothing(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    text: str,
) -> None:
    bad = make(tmp_path, JobIdentity("run-1", "bad"), lease=text)
    good = make(tmp_path, JobIdentity("run-1", "good"))
    found = {each.path: each for each in run_directories(at(local, tmp_path))}
    assert set(found) == {str(bad), str(good)}
    assert found[str(bad)].lease.newer
    assert not found[str(bad)].collected


def test_one_of_an_older_release_has_no_owner(tmp_path: Path, local: Satellite) -> None:  # noqa: F811
    make(tmp_path, JobIdentity("run-1", "train"), lease=None)
    (found,) = run_directories(at(local, tmp_path))
    assert (found.lease.epoch, found.lease.owner, found.collected) == (0, None, False)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("12", True),
        ("1", False),
        ("run-", True),
        ("run", False),
        ("retry-of", True),
        ("retry-of-it", True),
        ("retry-of-another", False),
        ("train", False),
    ],
)
def test_a_person_names_it_by_the_job_or_by_any_of_its_runs(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    name: str,
    meant: bool,
) -> None:
    make(tmp_path, JobIdentity("run-1", "train"))
    (found,) = run_directories(at(local, tmp_path))
    assert isinstance(found, RunDirectory)
    assert (found.is_job(name) or bool(found.runs_named(name))) == meant
    assert found.is_job(found.path)


@pytest.mark.parametrize("lost", [1, 1000])
def test_a_folder_that_goes_while_all_are_listed_is_no_error(
    tmp_path: Path,
    local: Satellite,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    lost: int,
) -> None:
    """As when a job is submitted in that moment; the real `find` can't be made to meet it."""
    folder = make(tmp_path / "work", JobIdentity("run-1", "train"))
    program = tmp_path / "bin" / "find"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho >>"$0.calls"\n{shutil.which("find")} "$@" || exit\n'
        f'if [ "$(wc -l <"$0.calls")" -le {lost} ]; then echo "No such file or directory" >&2; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    place = at(local, tmp_path / "work")
    if lost == 1:
        assert [each.path for each in run_directories(place)] == [str(folder)]
    else:
        with pytest.raises(DagsterSlurmError, match="can't be listed: No such file or directory"):
            run_directories(place)
