"""What many waiting scripts cost one run under ``slurm_executor``, and under Dagster's multiprocess executor.

A run of ``JOBS`` scripts, each a job of ``SLEEP`` seconds, goes through the ``staging`` profile (ssh to a real Slurm)
in a process of its own. Printed are its memory (PSS, with all that it started), its CPU, the milliseconds and CPU of a
submission, here and on the host, beside those of as many bare ``sbatch`` calls in a loop, and what Slurm was asked.
``SIDE=16`` runs as many scripts under the multiprocess executor, too. ``--storage postgres`` has Dagster keep its runs
and events there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _lab import Lab, lab
from _queries import asked, large_nodes, since
from _scaling import Worker, cpu_s, pss_mib, start, stopped_partitions, tree, write_project
from postgres import postgres

JOBS = int(os.environ.get("JOBS", "1000"))
SLEEP = int(os.environ.get("SLEEP", "60"))
SIDE = int(os.environ.get("SIDE", "0"))
LIMITS = {"memory_mib": 500.0, "cpu_a_step_s": 0.1, "queries_per_minute": 2.0}
CORES = 640
"""Cores that each node promises: with as many nodes as the cluster has all jobs run at once."""
SUBMITTED = " submitted on "
_LOOK = 0.2
_PATIENCE = SLEEP + 120.0
"""Seconds after the last submission in which all jobs run, and end, unless Slurm holds some."""
_WEIGH = 2.0
"""Seconds between two looks at the memory and at all threads, each of which takes some of what is measured."""


def bare(lab: Lab, count: int) -> tuple[float, float]:
    """Return the milliseconds, and those of CPU, that each of so many sbatch calls in a loop takes."""
    command = (
        f"for i in $(seq {count}); do sbatch --parsable -H -o /dev/null --mem=16 --wrap true; done >/dev/null"
    )
    with stopped_partitions(lab):
        began, cpu_began = time.monotonic(), _children_cpu_s()
        lab.cluster.run(["bash", "-c", command])
        took, cpu = time.monotonic() - began, _children_cpu_s() - cpu_began
    lab.cluster.run(["bash", "-c", "scancel -u $(id -un); while squeue -h | grep -q .; do sleep 1; done"])
    return 1000 * took / count, 1000 * cpu / count


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _host_cpu_s(lab: Lab) -> float:
    """Return the CPU seconds of what open logins have started on the host: satellites, with their sbatch."""
    (pid, *_) = lab.cluster.pid_file("sshd").read_text().split()
    return cpu_s(tree(int(pid)))


def release_held(lab: Lab, worker: Worker) -> None:
    """Release what Slurm holds, as the run says: on a small machine slurmd fails to launch some of so many jobs."""
    for job in re.findall(r"Job (\d+) is PENDING .* requeued held", worker.log.read_text(errors="replace")):
        lab.cluster.run(["scontrol", "release", job], check=False)  # it may run again by now


class Sampler:
    """Looks at a run's processes from time to time."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._weighed = 0.0
        self._pids = [worker.process.pid]
        self.memory = self.cpu = 0.0

    def look(self) -> None:
        """Look once."""
        if time.monotonic() - self._weighed > _WEIGH:
            self._weighed = time.monotonic()
            self._pids = tree(self._worker.process.pid)
            self.memory = max(self.memory, pss_mib(self._pids))
        self.cpu = max(self.cpu, cpu_s(self._pids))
        time.sleep(_LOOK)


def measure(lab: Lab, kind: str, count: int) -> dict[str, Any]:
    """Run so many scripts and return what that cost."""
    write_project(lab.project, count, f"sleep {SLEEP}\n")
    before = asked(lab.cluster)
    most = {"max_jobs": count} if kind == "threads" else {"max_concurrent": count}
    with stopped_partitions(lab):
        worker = start(lab, kind, kind=kind, config=most)
        sampler = Sampler(worker)
        while worker.process.poll() is None and not worker.count(SUBMITTED):
            sampler.look()
        first, cpu_first, host_first = worker.age, sampler.cpu, _host_cpu_s(lab)
        while worker.process.poll() is None and worker.count(SUBMITTED) < count:
            sampler.look()
        last, cpu_last, host_last = worker.age, sampler.cpu, _host_cpu_s(lab)
    while worker.process.poll() is None:
        sampler.look()
        if worker.age - last > _PATIENCE:
            release_held(lab, worker)
    took, queries = worker.age, since(before, asked(lab.cluster))
    return {
        "executor": kind,
        "scripts": count,
        "success": worker.process.returncode == 0,
        "first_submission_s": round(first, 1),
        "last_submission_s": round(last, 1),
        "submission_ms": round(1000 * (last - first) / count, 1),
        "cpu_a_submission_ms": round(1000 * (cpu_last - cpu_first) / count, 1),
        "host_cpu_a_submission_ms": round(1000 * (host_last - host_first) / count, 1),
        "wall_s": round(took, 1),
        "memory_mib": round(sampler.memory, 1),
        "cpu_s": round(sampler.cpu, 1),
        "cpu_a_step_s": round(sampler.cpu / count, 3),
        "queries": queries,
        "queries_per_minute": round(60 * sum(queries.values()) / took, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--storage", choices=("sqlite", "postgres"), default="sqlite")
    storage = parser.parse_args().storage
    with ExitStack() as stack:
        stack.enter_context(large_nodes(CORES))
        made = stack.enter_context(lab())
        if storage == "postgres":
            settings = "telemetry: {enabled: false}\n" + stack.enter_context(postgres())
            Path(os.environ["DAGSTER_HOME"], "dagster.yaml").write_text(settings)
        found: dict[str, object] = {"benchmark": "scale", "storage": storage, "sleep_s": SLEEP}
        loop, loop_cpu = bare(made, JOBS)
        found |= {"bare_sbatch_ms": round(loop, 1), "bare_sbatch_cpu_ms": round(loop_cpu, 1)}
        threads = measure(made, "threads", JOBS)
        found |= {"threads": threads, "submission_over_bare": round(threads["submission_ms"] / loop, 1)}
        if SIDE:
            found["threads_of_side"] = measure(made, "threads", SIDE)
            found["processes_of_side"] = measure(made, "processes", SIDE)
        if os.environ.get("KEEP_LOG"):
            (Path(os.environ["KEEP_LOG"])).write_bytes((made.project / "threads.log").read_bytes())
    holds = bool(threads["success"]) and all(threads[name] <= limit for name, limit in LIMITS.items())
    print(json.dumps({**found, "limits": LIMITS, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
