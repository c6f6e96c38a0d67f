"""What a range of a thousand partitions costs as a job array, and how soon each partition is a materialization.

A script with ``array`` runs over ``JOBS`` static partitions through the ``staging`` profile (ssh to a real Slurm). Each
payload sleeps up to ``SLEEP`` seconds; ``FAILING`` of them fail, and a re-execution runs those alone. Printed are the
run's memory (PSS, with all that it started) over that of a run of one partition, its CPU, the sbatch calls, and the
time from an element's end, by its own record, to the event in Dagster's storage. ``PARALLEL`` elements run at a time,
or all: a small machine's slurmd fails to launch a thousand at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
from _lab import Lab, lab
from _queries import asked, large_nodes, since
from _scaling import cpu_s, pss_mib, tree, write_package
from scale import CORES

from dagster_slurm_components.jobs.status import parse_status

JOBS = int(os.environ.get("JOBS", "1000"))
SLEEP = int(os.environ.get("SLEEP", "60"))
FAILING = int(os.environ.get("FAILING", "4"))
PARALLEL = int(os.environ.get("PARALLEL", str(JOBS)))
LIMITS = {"memory_over_one_mib": 150.0, "lag_p95_s": 3.0}
COMPONENT = """
type: dagster_slurm_components.SlurmScriptComponent
attributes:
  scripts:
    - payload: {root}/work.sh
      args: ["{{{{ partition_key }}}}"]
      array: {{keys_per_task: {per_task}, max_parallel: {parallel}}}
      resources: {{mem: 16M, time: "00:30:00", cpus_per_task: 1}}
      op: {{backfill_policy: {{type: single_run}}}}
      assets: [{{key: parts, partitions_def: {{type: static, partition_keys: {keys}}}}}]
"""
RUN = """
import json
import sys
from pathlib import Path

import dagster as dg

from dagster_slurm_components import slurm_executor


def job():
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    jobs = [dg.define_asset_job("arrays", executor_def=slurm_executor)]
    return dg.Definitions.merge(found, dg.Definitions(jobs=jobs)).resolve_job_def("arrays")


if __name__ == "__main__":
    first, last, parent = sys.argv[1:]
    from arrays_project import run

    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.get() as instance:
        again = dg.ReexecutionOptions.from_failure(parent, instance) if parent else None
        how = {"instance": instance, "tags": tags, "reexecution_options": again}
        with dg.execute_job(dg.reconstructable(run.job), **how) as result:
            print("RUN", result.run_id, flush=True)
            sys.exit(0 if result.success else 1)
"""


def write_project(root: Path) -> None:
    """Write a project of one script."""
    folder = write_package(root, "arrays_project", RUN)
    (root / "work.sh").write_text(
        f'sleep $((1${{1#k}} * 7919 % {SLEEP} + 1))\n[ ! -e "{root}/fail.$1" ] || exit 3\n'
    )
    keys = [key(number) for number in range(JOBS)]
    per_task = os.environ.get("KEYS_PER_TASK", "1")
    text = COMPONENT.format(root=root, keys=json.dumps(keys), per_task=per_task, parallel=PARALLEL)
    (folder / "defs.yaml").write_text(text)


def key(number: int) -> str:
    """Return the key of a partition."""
    return f"k{number:05d}"


def measure(lab: Lab, first: str, last: str, parent: str = "") -> dict[str, object]:
    """Run a range and return what that cost."""
    before, log = asked(lab.cluster), lab.project / "run.log"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{lab.project / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        "DAGSTER_SLURM_PROFILE": "staging",
        "DAGSTER_SLURM_AGENT": "off",
    }
    with log.open("wb") as stream:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, str(lab.project / "src" / "arrays_project" / "run.py"), first, last, parent],
            cwd=lab.project,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        memory = cpu = submitted = 0.0
        while process.poll() is None:
            pids = tree(process.pid)
            memory, cpu = max(memory, pss_mib(pids)), max(cpu, cpu_s(pids))
            if not submitted and " submitted on " in log.read_text(errors="replace"):
                submitted = time.monotonic() - began
            time.sleep(0.5)
        took = time.monotonic() - began
    text = log.read_text(errors="replace")
    if os.environ.get("KEEP_LOG"):
        Path(os.environ["KEEP_LOG"]).write_text(text)
    queries = since(before, asked(lab.cluster))
    return {
        "run_id": text.rpartition("RUN ")[2].split("\n")[0],
        "success": process.returncode == 0,
        "submitted_s": round(submitted, 1),
        "wall_s": round(took, 1),
        "memory_mib": round(memory, 1),
        "cpu_s": round(cpu, 1),
        "queries": queries,
        "queries_per_minute": round(60 * sum(queries.values()) / took, 2),
    }


def lags(instance: dg.DagsterInstance, run_id: str) -> list[float]:
    """Return the seconds from each element's end to its materialization."""
    found = []
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        if entry.dagster_event is not None:
            metadata = entry.dagster_event.step_materialization_data.materialization.metadata
            status = parse_status(Path(str(metadata["job/run_directory"].value), "status").read_bytes())
            if status is not None and status.ended is not None:
                found.append(entry.timestamp - status.ended)
    return sorted(found)


def sbatch_calls(lab: Lab) -> int:
    """Return how many submissions left a ledger."""
    return len(list(Path(lab.project).parent.rglob("ledger")))


def main() -> None:
    """Measure and print."""
    with large_nodes(CORES), lab() as made:
        write_project(made.project)
        one = measure(made, key(0), key(0))
        for number in range(FAILING):
            (made.project / f"fail.{key(number * (JOBS // max(FAILING, 1)) + 1)}").touch()
        whole = measure(made, key(0), key(JOBS - 1))
        again: dict[str, object] = {}
        with dg.DagsterInstance.get() as instance:
            delays = lags(instance, str(whole["run_id"]))
            for file in made.project.glob("fail.*"):
                file.unlink()
            if FAILING:
                again = measure(made, key(0), key(JOBS - 1), str(whole["run_id"]))
                again["materializations"] = len(lags(instance, str(again["run_id"])))
    over = round(float(str(whole["memory_mib"])) - float(str(one["memory_mib"])), 1)
    figures = {
        "memory_over_one_mib": over,
        "lag_p50_s": round(delays[len(delays) // 2], 2),
        "lag_p95_s": round(delays[int(len(delays) * 0.95)], 2),
        "lag_max_s": round(delays[-1], 2),
        "materializations": len(delays),
    }
    asked_for = {"partitions": JOBS, "failing": FAILING, "parallel": PARALLEL, "sleep_s": SLEEP}
    right = len(delays) == JOBS - FAILING and again.get("materializations", 0) == FAILING
    holds = right and all(figures[name] <= limit for name, limit in LIMITS.items())
    runs = {"one": one, "all": whole, "again": again}
    print(
        json.dumps({"benchmark": "arrays", **asked_for, **figures, **runs, "limits": LIMITS, "holds": holds})
    )
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
