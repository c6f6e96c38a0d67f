"""Two processes submit eight jobs at once where three are allowed, on a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import PATIENCE

import slurm_testcluster as slurm
from dagster_slurm_components.jobs.model import JobIdentity

pytestmark = pytest.mark.slurm

DRIVER = Path(__file__).with_name("places_driver.py")
JOBS = 8
LIMIT = 3


def said(*argv: str) -> list[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout.split()


def test_eight_jobs_of_two_processes_never_are_more_than_three(
    cluster: slurm.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.slurm_conf))
    names = ",".join(JobIdentity("limit", f"place{number}").job_name for number in range(JOBS))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(DRIVER), str(tmp_path), str(LIMIT)]
    processes = [
        subprocess.Popen(
            [*command, str(first), str(JOBS // 2), names], stdout=subprocess.PIPE, text=True, env=environment
        )
        for first in (0, JOBS // 2)
    ]
    most = 0
    deadline = time.monotonic() + PATIENCE
    try:
        while any(process.poll() is None for process in processes):
            assert time.monotonic() < deadline
            most = max(most, len(said("squeue", "--me", "--noheader", "--format=%i", f"--name={names}")))
            if most == LIMIT:  # on a busy machine the first would have ended before the third is submitted
                (tmp_path / "gate").touch()
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
    ids = [job_id for process in processes for job_id in str(process.communicate()[0]).split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(set(ids)) == JOBS
    assert most == LIMIT
    rows: list[list[str]] = []
    while len(rows) < JOBS:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        listed = f"--jobs={','.join(ids)}"
        told = said("sacct", "-XPn", listed, "--state=COMPLETED", "--format=JobID,State,Submit,End")
        rows = [row.split("|") for row in told]
    assert {row[1] for row in rows} == {"COMPLETED"}
    # One whose end and another whose submission fall into the same second did not overlap: that was waited for.
    begun = [(row[2], 1) for row in rows]
    ended = [(row[3], -1) for row in rows]
    together = peak = 0
    for _, change in sorted(begun + ended, key=lambda event: (event[0], event[1])):
        together += change
        peak = max(peak, together)
    assert peak == LIMIT
