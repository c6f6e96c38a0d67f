"""Many processes, one budget: how old is what a step knows of the queue, and when is an ended job named rightly?

20 processes follow a job each on a real Slurm, as Dagster's multiprocess executor has them, with the default limits.
Some minutes later, when little is left of the burst, four of the jobs reach their time limit, four use too much memory
and four are cancelled by ``scancel``. All of it is done twice: with Slurm's accounting, and with slurmdbd stopped.

``SECONDS_WATCHED`` is the time before the events. Queries are counted by wrappers around ``squeue`` and ``sacct``.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from _lab import Lab, lab
from _satellite import SubprocessDialer

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.calls import Budget
from dagster_slurm_components.jobs.events import Ended, WatchFailed
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec
from dagster_slurm_components.jobs.outcome import judge
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.submit import submit
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.launchers.base import LaunchPlan
from dagster_slurm_components.spec.profile import Limits

PROCESSES = int(os.environ.get("PROCESSES", "20"))
OF_A_KIND = min(4, PROCESSES // 4)
WATCHED = float(os.environ.get("SECONDS_WATCHED", "150"))
BETWEEN_STARTS = 1.0
GIVE_UP = 240.0
LIMITS = {"age_p95_s": 70.0, "named_s": 90.0}
KINDS = ("TIMEOUT", "OUT_OF_MEMORY", "CANCELLED")
PROGRAMS = ("squeue", "sacct")
WAITS = 'while [ ! -e "{gate}" ]; do sleep 0.5; done; exec python3 -c "x = bytearray(600 << 20); input()" <>"{fifo}"\n'


def work(folder: Path, number: int) -> None:
    """Be one of the processes: submit a job, follow it to its end, print what is known of it."""
    gate, fifo = folder / f"gate{number}", folder / f"fifo{number}"
    os.mkfifo(fifo)
    host = RemoteHost(SubprocessDialer(env=dict(os.environ)))
    satellite, limits = Satellite(host), Limits()
    budget = Budget(f"{folder}/queue/budget.json", limits.queries_per_minute, limits.burst)
    scheduler = SlurmScheduler(f"{folder}/queue", budget)
    watcher = Watcher(satellite, scheduler, operations_per_second=limits.file_operations_per_second)
    plan = LaunchPlan(script=WAITS.format(gate=gate, fifo=fifo), payload=("true",))
    spec = JobSpec(
        JobIdentity("benchmark", f"step{number}"), plan, Activation(), (("mem", "32"), ("time", "60"))
    )
    handle = submit(Target(satellite, scheduler, watcher, str(folder)), spec)
    print(json.dumps({"job_id": handle.job_id}), flush=True)
    watch, began, ages, ended = watcher.watch(handle), time.monotonic(), [], None
    looked = began
    while ended is None:
        event = watch.next(timeout=0.1)
        if isinstance(event, WatchFailed):
            raise event.error
        ended = event if isinstance(event, Ended) else None
        if time.monotonic() - looked >= 1.0:
            looked = time.monotonic()
            queue = watch.evidence.queue
            ages.append(round(looked - (queue.taken if queue else began), 1))
    # Slurm's daemon wrote there what it did, when it did so.
    killed = Path(handle.file("stderr.log")).stat().st_mtime
    outcome = judge(ended)
    name = {"timeout": "TIMEOUT", "out_of_memory": "OUT_OF_MEMORY"}.get(
        outcome.kind or "", ended.observation.state
    )
    seconds = round(time.time() - killed, 1)
    found = {"seconds": seconds, "name": name, "message": outcome.message, "ages": ages}
    print(json.dumps(found), flush=True)
    host.close()


def _counting(folder: Path) -> str:
    """Return a PATH on which the programs that ask Slurm count their calls."""
    (folder / "bin").mkdir(parents=True)
    for name in PROGRAMS:
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\necho x >>"{folder}/{name}"\nexec {shutil.which(name)} "$@"\n')
        program.chmod(0o755)
    return f"{folder}/bin:{os.environ['PATH']}"


def measure(made: Lab, folder: Path) -> dict[str, Any]:
    """Start the processes, let jobs end, and return the figures."""
    environment = {**os.environ, "SLURM_CONF": str(made.cluster.slurm_conf), "PATH": _counting(folder)}
    began = time.monotonic()
    processes, jobs = [], []
    for number in range(PROCESSES):
        argv = [sys.executable, __file__, str(folder), str(number)]
        processes.append(subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True))
        time.sleep(BETWEEN_STARTS)
    for process in processes:
        assert process.stdout
        jobs.append(json.loads(process.stdout.readline())["job_id"])
    time.sleep(max(0.0, WATCHED - (time.monotonic() - began)))
    kinds = {number: KINDS[number % len(KINDS)] for number in range(OF_A_KIND * len(KINDS))}
    for number, kind in kinds.items():
        job = jobs[number]
        if kind == "TIMEOUT":
            made.cluster.run(["scontrol", "update", f"jobid={job}", "EndTime=now+2"])
        elif kind == "OUT_OF_MEMORY":
            (folder / f"gate{number}").touch()
        else:
            made.cluster.run(["scancel", job])
        time.sleep(0.5)
    giving_up = threading.Timer(GIVE_UP, _kill, ([processes[number] for number in kinds],))
    giving_up.start()
    found = {number: _last(processes[number]) for number in kinds}
    giving_up.cancel()
    made.cluster.run(["scancel", *jobs[len(kinds) :]])
    others = [_last(process) for process in processes[len(kinds) :]]
    ages = [age for end in (*found.values(), *others) for age in end["ages"]]
    for process in processes:
        process.wait()
    minutes = (time.monotonic() - began) / 60
    queries = {
        name: len((folder / name).read_text().split()) for name in PROGRAMS if (folder / name).exists()
    }
    return {
        "age_median_s": round(statistics.median(ages), 1),
        "age_p95_s": round(statistics.quantiles(ages, n=20)[-1], 1),
        "age_most_s": max(ages),
        "named": {
            name: _named(name, [found[number] for number in kinds if kinds[number] == name]) for name in KINDS
        },
        "minutes": round(minutes, 1),
        "queries": queries,
        "queries_per_minute": round(sum(queries.values()) / minutes, 2),
    }


def _kill(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()


def _last(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a process said of its job's end."""
    assert process.stdout
    line = process.stdout.readline()
    return (
        json.loads(line) if line else {"name": f"nothing within {GIVE_UP:.0f} s", "message": "", "ages": []}
    )


def _named(kind: str, ends: list[dict[str, Any]]) -> dict[str, Any]:
    """Return of the jobs of a kind how many were named rightly, and the seconds that took at most."""
    right = [end for end in ends if end["name"] == kind]
    figures: dict[str, Any] = {
        "of": len(ends),
        "right": len(right),
        "seconds": sorted(end["seconds"] for end in right),
    }
    wrong = sorted({f"{end['name']}: {end['message']}" for end in ends if end["name"] != kind})
    if kind == "CANCELLED":
        figures["by_whom"] = sum("by the user with id" in str(end["message"]) for end in ends)
    return {**figures, **({"wrong": wrong} if wrong else {})}


def _holds(found: dict[str, Any], *, accounting: bool) -> bool:
    named = found["named"].values()
    right = all(each["right"] == each["of"] and max(each["seconds"]) <= LIMITS["named_s"] for each in named)
    whom = found["named"]["CANCELLED"]
    known = not accounting or whom["by_whom"] == whom["of"]
    return right and known and found["age_p95_s"] <= LIMITS["age_p95_s"]


def main() -> None:
    """Measure and print."""
    found: dict[str, Any] = {}
    with lab() as made:
        found["with_accounting"] = measure(made, made.project / "with")
        made.cluster.stop_daemon("slurmdbd")
        found["slurmdbd_stopped"] = measure(made, made.project / "without")
    holds = all(_holds(each, accounting=name == "with_accounting") for name, each in found.items())
    sizes = {"processes": PROCESSES, "seconds_watched": WATCHED}
    print(json.dumps({"benchmark": "shared_budget", **sizes, **found, "limits": LIMITS, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
