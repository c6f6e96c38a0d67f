"""What many waiting scripts cost one run under ``slurm_executor``, and under Dagster's multiprocess executor.

A run of ``JOBS`` scripts, each a job of ``SLEEP`` seconds, goes through the ``staging`` profile (ssh to a real Slurm)
in a process of its own. Printed are its memory (PSS, with all that it started), its CPU, how long it took until the
last job was submitted, beside as many bare ``sbatch`` calls in a loop, and what Slurm was asked. ``SIDE=16`` runs as
many scripts under the multiprocess executor, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from _lab import Lab, lab
from _queries import asked, large_nodes, since

JOBS = int(os.environ.get("JOBS", "1000"))
SLEEP = int(os.environ.get("SLEEP", "60"))
SIDE = int(os.environ.get("SIDE", "0"))
LIMITS = {"memory_mib": 500.0, "cpu_a_step_s": 0.1, "queries_per_minute": 2.0}
CORES = 640
"""Cores that each node promises: with as many nodes as the cluster has all jobs run at once."""
HERE = Path(__file__).parent
COMPONENT = """
type: dagster_slurm_components.SlurmScriptComponent
attributes:
  defaults: {resources: {mem: 16M, time: "00:30:00", cpus_per_task: 1}}
  scripts:
"""
RUN = """
import sys
from pathlib import Path

import dagster as dg

from dagster_slurm_components import slurm_executor


def _job(executor):
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    jobs = [dg.define_asset_job("scale", executor_def=executor)]
    return dg.Definitions.merge(found, dg.Definitions(jobs=jobs)).resolve_job_def("scale")


def threads():
    return _job(slurm_executor)


def processes():
    return _job(dg.multiprocess_executor)


if __name__ == "__main__":
    kind, most = sys.argv[1:]
    from scaling import run

    config = {"max_jobs": int(most)} if kind == "threads" else {"max_concurrent": int(most)}
    job = dg.reconstructable(getattr(run, kind))
    with dg.DagsterInstance.get() as instance:
        with dg.execute_job(job, instance=instance, run_config={"execution": {"config": config}}) as result:
            sys.exit(0 if result.success else 1)
"""


def write_project(root: Path, count: int) -> None:
    """Write a project of so many scripts."""
    package = root / "src" / "scaling"
    (package / "defs" / "scripts").mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "scaling"\n'
    )
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "run.py").write_text(RUN)
    (root / "wait.sh").write_text(f"sleep {SLEEP}\n")
    scripts = (
        f"    - {{payload: {root / 'wait.sh'}, assets: [{{key: s{number}}}]}}\n" for number in range(count)
    )
    (package / "defs" / "scripts" / "defs.yaml").write_text(COMPONENT + "".join(scripts))


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    pids = [pid]
    for each in pids:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            pids += [int(child) for child in task.read_text().split()]
    return pids


def pss_mb(pids: list[int]) -> float:
    """Return the memory of processes, what they share counted once, in MiB."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds of processes and of those that they waited for."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def partitions(lab: Lab, state: str) -> None:
    """Stop all partitions from starting jobs, or let them: submission alone is timed, not what the nodes do."""
    for name in set(lab.cluster.run(["sinfo", "-h", "-o", "%R"]).stdout.split()):
        lab.cluster.run(["scontrol", "update", f"PartitionName={name}", f"State={state}"])


def bare(lab: Lab, count: int) -> float:
    """Return the seconds that so many sbatch calls in a loop take."""
    began = time.monotonic()
    command = (
        f"for i in $(seq {count}); do sbatch --parsable -H -o /dev/null --mem=16 --wrap true; done >/dev/null"
    )
    lab.cluster.run(["bash", "-c", command])
    took = time.monotonic() - began
    partitions(lab, "UP")
    lab.cluster.run(["bash", "-c", "scancel -u $(id -un); while squeue -h | grep -q .; do sleep 1; done"])
    return took


def measure(lab: Lab, kind: str, count: int) -> dict[str, object]:
    """Run so many scripts and return what that cost."""
    write_project(lab.project, count)
    before = asked(lab.cluster)
    partitions(lab, "DOWN")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{lab.project / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        "DAGSTER_SLURM_PROFILE": "staging",
        "DAGSTER_SLURM_AGENT": "off",
    }
    with (lab.project / f"{kind}.log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, str(lab.project / "src" / "scaling" / "run.py"), kind, str(count)],
            cwd=lab.project,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        memory = cpu = cpu_submitting = first = last = 0.0
        while process.poll() is None:
            pids = tree(process.pid)
            memory, cpu = max(memory, pss_mb(pids)), max(cpu, cpu_s(pids))
            text = (lab.project / f"{kind}.log").read_text(errors="replace")
            done = text.count(" submitted on ")
            if done and not first:
                first = time.monotonic() - began
            if done >= count and not last:
                last = time.monotonic() - began
                cpu_submitting = cpu
                partitions(lab, "UP")
            time.sleep(1.0)
        took = time.monotonic() - began
    queries = since(before, asked(lab.cluster))
    return {
        "executor": kind,
        "scripts": count,
        "success": process.returncode == 0,
        "first_submission_s": round(first, 1),
        "last_submission_s": round(last, 1),
        "wall_s": round(took, 1),
        "memory_mib": round(memory, 1),
        "cpu_s": round(cpu, 1),
        "cpu_until_submitted_s": round(cpu_submitting, 1),
        "cpu_a_step_s": round(cpu / count, 3),
        "queries": queries,
        "queries_per_minute": round(60 * sum(queries.values()) / took, 2),
    }


def main() -> None:
    """Measure and print."""
    with large_nodes(CORES), lab() as made:
        found: dict[str, object] = {"benchmark": "scale", "sleep_s": SLEEP}
        found["bare_sbatch_s"] = round(bare(made, JOBS), 1)
        found["threads"] = measure(made, "threads", JOBS)
        if SIDE:
            found["threads_of_side"] = measure(made, "threads", SIDE)
            found["processes_of_side"] = measure(made, "processes", SIDE)
        if os.environ.get("KEEP_LOG"):
            (Path(os.environ["KEEP_LOG"])).write_bytes((made.project / "threads.log").read_bytes())
    threads = found["threads"]
    assert isinstance(threads, dict)
    holds = bool(threads["success"]) and all(threads[name] <= limit for name, limit in LIMITS.items())
    print(json.dumps({**found, "limits": LIMITS, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
