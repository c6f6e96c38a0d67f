"""What watching 1,000 running jobs costs one process: memory, CPU, Slurm queries, and how late output arrives.

The run directories are real files behind a real satellite in a process of its own; ``squeue`` is a script that lists
1,000 running jobs and counts its calls. Ten jobs a second write a line; its way to the follower is timed. Beside each
job lies what a sampler writes in its first minute, which is read within the time that is measured; ``SAMPLED=0`` leaves
that out, and the difference is what it costs. With ``ELEMENTS=1`` they are the elements of arrays.

With ``REAL_JOBS=200`` as many jobs run on a real Slurm, too, which counts by itself how often it is asked.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _queries import measure_on_slurm
from _satellite import SubprocessDialer

from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.calls import Budget
from dagster_slurm_components.jobs.events import Output, Part, Watch
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.spec.profile import Limits

JOBS = int(os.environ.get("JOBS", "1000"))
SECONDS = float(os.environ.get("SECONDS_WATCHED", "60"))
SETTLE = float(os.environ.get("SECONDS_BEFORE", "15"))
LINES_PER_SECOND = 10.0
SAMPLED = os.environ.get("SAMPLED", "1") != "0"
PART = Part.ELEMENT if os.environ.get("ELEMENTS", "0") != "0" else Part.JOB
HEAD = (
    '{"node": "node1", "t": 1795367857.0, "cpus": 4, "memory": 8589934592, "from": "cgroup2", "gpus": []}\n'
)
SAMPLE = (
    '{"t": %d.0, "cpu": %d.5, "mem": 734003200, "peak": 838860800, "read": 52428800, "written": 1048576}\n'
)
REAL_JOBS = int(os.environ.get("REAL_JOBS", "0"))
REAL_SECONDS = float(os.environ.get("REAL_SECONDS_WATCHED", "180"))
# What an element writes is read every five seconds.
LAG = 2.0 if PART is Part.JOB else 6.0
LIMITS = {"memory_mb": 150.0, "cpu_percent": 5.0, "queries_per_minute": 2.0, "lag_p95_s": LAG}


class CountingHost(RemoteHost):
    """Counts the calls to the host."""

    calls = 0

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Call it, and count that."""
        self.calls += 1
        return super().call(op, params, blob, timeout=timeout)


def prepare(folder: Path) -> list[JobHandle]:
    """Make the run directories of jobs that run, and the queue that lists them."""
    handles = []
    rows = []
    for number in range(JOBS):
        run_dir = folder / "runs" / str(number)
        run_dir.mkdir(parents=True)
        (run_dir / "status").write_text(f"restart=0\nstarted={time.time() - 600}\nhost=node1\n")
        for name in ("messages.jsonl", "stdout.log", "stderr.log"):
            (run_dir / name).touch()
        if SAMPLED:
            (run_dir / "usage").mkdir()
            samples = "".join(SAMPLE % (5 * each, 19 * each) for each in range(1, 13))
            (run_dir / "usage" / "0.jsonl").write_text(HEAD + samples)
        handles.append(JobHandle(str(1000 + number), str(run_dir)))
        rows.append(f"{1000 + number}|RUNNING|1795367857|0|1|None|")
    (folder / "queue.txt").write_text("\n".join(rows) + "\n")
    squeue = folder / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho x >>"{folder}/asked"\ncat "{folder}/queue.txt"\n')
    squeue.chmod(0o755)
    return handles


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def collect(watches: list[Watch], lags: list[float], stop: threading.Event) -> None:
    """Stand for all followers: take each event; a line holds the time it was written."""
    while not stop.is_set():
        for watch in [watch for watch in watches if watch.backlog]:
            while (event := watch.next(timeout=0)) is not None:
                if isinstance(event, Output) and event.data:
                    now = time.time()
                    lags += [now - float(line) for line in event.data.decode().split()]
        time.sleep(0.05)


def memory_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(folder: Path) -> dict[str, object]:
    """Watch for a while and return the figures."""
    handles = prepare(folder)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    host = CountingHost(SubprocessDialer(env=environment))
    satellite = Satellite(host)
    pid = int(host.call("hello", {}).result["pid"])
    limits = Limits()
    budget = Budget(f"{folder}/queue/budget.json", limits.queries_per_minute, limits.burst)
    scheduler = SlurmScheduler(f"{folder}/queue", budget)
    watcher = Watcher(
        satellite,
        scheduler,
        operations_per_second=float(os.environ.get("OPS", limits.file_operations_per_second)),
    )
    watches = [watcher.watch(handle, part=PART) for handle in handles]
    lags: list[float] = []
    stop = threading.Event()
    threading.Thread(target=collect, args=(watches, lags, stop), daemon=True).start()
    time.sleep(SETTLE)
    lags.clear()
    asked = len((folder / "asked").read_text().split()) if (folder / "asked").exists() else 0
    began, mine, theirs, calls = time.monotonic(), own_cpu(), cpu_of(pid), host.calls
    while time.monotonic() - began < SECONDS:
        with Path(random.choice(handles).file("stdout.log")).open("a") as file:
            file.write(f"{time.time()}\n")
        time.sleep(1 / LINES_PER_SECOND)
    elapsed = time.monotonic() - began
    used, satellite_used = own_cpu() - mine, cpu_of(pid) - theirs
    calls = host.calls - calls
    queries = len((folder / "asked").read_text().split()) - asked
    stop.set()
    for watch in watches:
        watch.close()
    host.close()
    figures = {
        "memory_mb": round(memory_mb(), 1),
        "cpu_percent": round(100 * used / elapsed, 2),
        "satellite_cpu_percent": round(100 * satellite_used / elapsed, 2),
        "queries_per_minute": round(queries * 60 / elapsed, 2),
        "host_calls_per_minute": round(calls * 60 / elapsed),
        "lag_median_s": round(statistics.median(lags), 2),
        "lag_p95_s": round(statistics.quantiles(lags, n=20)[-1], 2),
    }
    what = {"jobs": JOBS, "part": PART.value, "sampled": SAMPLED}
    return {**what, "seconds": round(elapsed, 1), "lines": len(lags), **figures}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    holds = all(float(str(found[name])) <= limit for name, limit in LIMITS.items())
    if REAL_JOBS:
        real = measure_on_slurm(REAL_JOBS, REAL_SECONDS, Limits().file_operations_per_second)
        holds = holds and float(str(real["queries_per_minute"])) <= LIMITS["queries_per_minute"]
        found["on_slurm"] = real
    print(json.dumps({"benchmark": "watch", **found, "limits": LIMITS, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
