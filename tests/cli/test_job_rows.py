"""What `dg-slurm jobs` says of a job, from what is known of it."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.job_rows import COLUMNS, asked_for, job_row
from dagster_slurm_components.jobs.lease import Lease, parse_ledger
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import Evidence, Observation, Phase
from dagster_slurm_components.jobs.records import RunDirectory
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.slurm.accounting import AccountingRow

PATH = str(PurePosixPath("/w/runs/8d1f0000-1/train/2026-11-02/0"))
SCRIPT = b"""#!/bin/bash
#SBATCH --job-name=train-abc
#SBATCH --comment="dagster abc"
#SBATCH --partition=debug
#SBATCH --constraint="a100&nvlink"
#SBATCH --exclusive
#SBATCH --mem=300M
# --time=1
"""
STARTED = b"restart=0\nstarted=110\nhost=node1\nnodes=node[1-2]\nnum_nodes=2\npartition=debug\nmem_per_node_mb=300\n"


def known(observation: Observation, status: bytes, **evidence: AccountingRow) -> tuple[RunDirectory, JobInfo]:
    ledger = parse_ledger(b"token=t\njob_id=7\nsubmitted=100\n")
    record = parse_status(status)
    folder = RunDirectory(PATH, "8d1f0000-1", "train", "2026-11-02", 0, 0, ledger, record, Lease(), 1.0)
    handle = JobHandle("7", PATH, submitted=100)
    return folder, JobInfo(handle, observation, Evidence(status=record, **evidence))


def cells(row: dict[str, object]) -> dict[str, object]:
    return dict(zip(COLUMNS, terminal.cells([row], COLUMNS)[0], strict=True))


def test_what_a_job_asks_for_is_read_from_its_script() -> None:
    assert asked_for(SCRIPT) == {
        "partition": "debug",
        "constraint": "a100&nvlink",
        "exclusive": "yes",
        "mem": "300M",
    }
    assert asked_for(b"") == {}


def test_one_that_waits() -> None:
    observation = Observation("PENDING", Phase.WAITING, "queue", reason="Priority", starts_at=1_800_000_000.0)
    row = job_row(*known(observation, b""), asked_for(SCRIPT), now=161.0)
    seen = cells(row)
    assert (seen["state"], seen["reason"], seen["partition"]) == ("PENDING", "Priority", "debug")
    assert (seen["Dagster partition"], seen["waited"], seen["ran"]) == ("2026-11-02", "01:01", "")
    assert (row["submitted"], row["expected_start"]) == (
        "1970-01-01T00:01:40+00:00",
        "2027-01-15T08:00:00+00:00",
    )


def test_one_that_runs() -> None:
    seen = cells(job_row(*known(Observation("RUNNING", Phase.RUNNING), STARTED), {}, now=3710.0))
    assert (seen["node"], seen["waited"], seen["ran"]) == ("node[1-2]", "00:10", "01:00:00")
    assert (seen["MiB used/asked"], seen["exit"]) == ("?/600", None)


def test_one_that_ended_has_what_the_accounting_says() -> None:
    account = AccountingRow("7", "OUT_OF_MEMORY", used_memory_bytes=500 * 2**20, req_mem_bytes=600 * 2**20)
    observation = Observation("OUT_OF_MEMORY", Phase.TERMINAL, exit_code=137)
    row = job_row(*known(observation, STARTED + b"ended=130\nexit=137\n", accounting=account), {}, now=9e9)
    seen = cells(row)
    assert (seen["MiB used/asked"], seen["exit"], seen["ran"]) == ("500/600", 137, "00:20")


@pytest.mark.parametrize("text", ["", "no status\n"])
def test_one_of_which_nothing_is_known(text: str) -> None:
    folder, _ = known(Observation(), text.encode())
    assert cells(job_row(folder, None, {}))["state"] == "not submitted"
