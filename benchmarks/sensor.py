"""What one pass of the sensor costs beside many runs and jobs: seconds, and calls to the host.

500 runs of 20 steps each lie in Dagster and on the host. In the first figure 20 of these runs are under way, so that
400 leases are open, and the jobs of all others were collected; in the second all 10,000 leases are open.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_slurm_components import slurm_jobs_sensor
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.leases import VERSION
from dagster_slurm_components.jobs.lease import Note
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.profiles import load_profile

RUNS, STEPS, UNDER_WAY = 500, 20, 20
PASSES = 5


def make(workdir: Path, run_id: str, *, collected: bool) -> None:
    """Make the run directories of a run, as submissions leave them."""
    index = workdir / "open"
    index.mkdir(parents=True, exist_ok=True)
    lease = {
        "version": VERSION,
        "epoch": 1,
        "state": "collected" if collected else "following",
        "digest": "d",
        "content": "c",
        "owner": asdict(Owner.of(run_id, os.getpid())),
        "renewed": time.time(),
        "outcome": "COMPLETED" if collected else None,
        "finished": None,
        "shown": {},
    }
    for number in range(STEPS):
        identity = JobIdentity(run_id, f"step{number}")
        folder = workdir / identity.folder
        folder.mkdir(parents=True)
        note = asdict(Note(profile="local", step=identity.step))
        (folder / "lease").write_text(json.dumps({**lease, "token": identity.token, "note": note}))
        (folder / "ledger").write_text(f"token={identity.token}\njob_id=1:1\nsubmitted=1\n")
        if not collected:
            (index / identity.token).write_text(str(folder))


class Counted:
    """Counts the calls to the local host."""

    def __init__(self) -> None:
        self.calls = 0
        real = InProcessHost.call

        def call(host: InProcessHost, *args: Any, **more: Any) -> Any:
            self.calls += 1
            return real(host, *args, **more)

        InProcessHost.call = call  # type: ignore[method-assign, assignment]


def measure(*, all_open: bool) -> dict[str, float]:
    """Return the seconds of a pass, the least of some, and its calls."""
    with tempfile.TemporaryDirectory(prefix="dg-slurm-bench-") as root, tempfile.TemporaryDirectory() as home:
        Path(root, "pyproject.toml").touch()
        place = target(load_profile("local", start=Path(root)))
        with dg.DagsterInstance.local_temp(home) as instance:
            for number in range(RUNS):
                under_way = all_open or number < UNDER_WAY
                status = dg.DagsterRunStatus.STARTED if under_way else dg.DagsterRunStatus.SUCCESS
                run_id = f"{number:08d}-0000-4000-8000-000000000000"
                tags = {"slurm/profile": "local"}
                instance.add_run(dg.DagsterRun(job_name="job", run_id=run_id, status=status, tags=tags))
                make(Path(place.workdir), run_id, collected=not under_way)
            sensor = slurm_jobs_sensor(project=root)
            counted = Counted()
            took = []
            for _ in range(PASSES):
                began = time.monotonic()
                sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
                took.append(time.monotonic() - began)
    return {"pass_s": round(min(took), 3), "host_calls": counted.calls / PASSES}


def main() -> None:
    usual, worst = measure(all_open=False), measure(all_open=True)
    figures = {
        "benchmark": "sensor",
        "runs": RUNS,
        "steps": STEPS,
        "open_400": usual,
        "open_10000": worst,
        "limit_s": 1.0,
        "limit_calls": 20,
        "met": usual["pass_s"] <= 1.0 and usual["host_calls"] <= 20,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
