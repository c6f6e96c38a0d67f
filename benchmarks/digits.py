"""How much longer the run of the digits example takes, on a real Slurm, than the jobs that it has to wait for.

The example goes through its ``staging`` profile ``ROUNDS`` times. Its jobs form a chain of steps; the critical path is
the longest sum along it of what each job took, from its submission to its end. All that lies between (Dagster, the
start of processes for steps of Python, the watch for a job's end) is ours to answer for.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from _lab import Lab, lab

ROOT = Path(__file__).parents[1]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
LIMIT_S = 2.5
DEPS: Mapping[str, tuple[str, ...]] = {
    "digits/split": (),
    "digits/baseline": ("digits/split",),
    "digits/model": ("digits/split",),
    "digits/evaluation": ("digits/split", "digits/model"),
    "digits/report": ("digits/evaluation",),
}


def job_s(instance: dg.DagsterInstance, run_id: str, key: str) -> float:
    """Return the seconds from the submission of an asset's job to its end."""
    (record,) = instance.fetch_materializations(dg.AssetKey(key.split("/")), limit=1).records
    made = record.asset_materialization
    if record.run_id != run_id or made is None:
        raise RuntimeError(f"the run did not make {key}")
    return sum(float(str(made.metadata[f"job/{part}"].value)) for part in ("queue_wait_s", "elapsed_s"))


def critical_path(instance: dg.DagsterInstance, run_id: str) -> float:
    """Return the seconds of the longest chain of jobs."""
    ends: dict[str, float] = {}
    for key, deps in DEPS.items():  # each after what it depends on
        ends[key] = job_s(instance, run_id, key) + max((ends[dep] for dep in deps), default=0.0)
    return max(ends.values())


def launch(made: Lab, project: Path) -> dict[str, float]:
    """Run the example once; return the seconds of the run, of its critical path, and of the whole command."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(project / "src"), str(ROOT)]),
        "DAGSTER_SLURM_PROFILE": "staging",
        "DAGSTER_SLURM_CLUSTER": str(made.cluster.folder),
        "DAGSTER_SLURM_AGENT": "off",
        "DIGITS_ENV": sys.prefix,
    }
    began = time.monotonic()
    command = [str(Path(sys.executable).parent / "dg"), "launch", "--assets", "group:digits"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    with dg.DagsterInstance.get() as instance:
        (record,) = instance.get_run_records(limit=1)
        if done.returncode or record.start_time is None or record.end_time is None:
            raise RuntimeError(f"the run failed:\n{done.stdout}{done.stderr}")
        run = record.end_time - record.start_time
        path = critical_path(instance, record.dagster_run.run_id)
    return {"run_s": run, "critical_path_s": path, "over_s": run - path, "command_s": took}


def main() -> None:
    """Measure and print."""
    with lab() as made:
        project = made.project.parent / "digits"
        shutil.copytree(ROOT / "examples" / "digits", project, ignore=shutil.ignore_patterns(".*"))
        rounds = [launch(made, project) for _ in range(ROUNDS)]
    found = {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}
    holds = found["over_s"] <= LIMIT_S
    every = [round(each["over_s"], 2) for each in rounds]
    print(
        json.dumps(
            {"benchmark": "digits", **found, "over_of_each_s": every, "limit_s": LIMIT_S, "holds": holds}
        )
    )
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
