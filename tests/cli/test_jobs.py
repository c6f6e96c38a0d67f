"""Which job of several a person means."""

from __future__ import annotations

import pytest

from dagster_slurm_components.cli.finding import meant as meant_of
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.lease import Lease, parse_ledger
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.records import RunDirectory


def made(run_id: str, job: str, *, followed_by: str | None = None) -> RunDirectory:
    lease = Lease(owner=Owner(followed_by, "n", "", 1, "s")) if followed_by else Lease()
    ledger = parse_ledger(f"token=t\njob_id={job}\nsubmitted=6\n".encode())
    path = f"/w/runs/{run_id}/train/0"
    return RunDirectory(path, run_id, "train", None, 0, 0, ledger, None, lease, 1.0)


FIRST, SECOND = made("aaaa-1", "12", followed_by="cccc-1"), made("aaaa-2", "aaaa")
KNOWN = [FIRST, SECOND]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("aaaa-1", [FIRST]),
        ("cccc", [FIRST]),
        ("12", [FIRST]),
        (SECOND.path, [SECOND]),
        ("aaaa", [SECOND]),  # a job's whole id counts before the beginning of a run's
        ("dddd", []),
    ],
)
def test_one_run_is_meant(name: str, meant: list[RunDirectory]) -> None:
    assert meant_of(KNOWN, name) == meant


def test_f3_the_beginning_of_several_runs_names_them_all() -> None:
    with pytest.raises(DagsterSlurmError, match="'aaaa-' names 2 runs: aaaa-1, aaaa-2"):
        meant_of(KNOWN, "aaaa-")
