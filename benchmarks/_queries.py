"""How often a watcher asks a real Slurm while many jobs run, as ``sdiag`` and slurmdbd themselves count it."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from _lab import lab
from _satellite import SubprocessDialer

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.calls import Budget
from dagster_slurm_components.jobs.events import Ended, Watch
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity, JobSpec
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.submit import submit
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.launchers.base import LaunchPlan
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.spec.profile import Limits
from slurm_testcluster import Cluster, render
from slurm_testcluster.layout import Layout

_QUERIES = re.compile(r"^\s*(REQUEST_JOB\w*_INFO\w*|DBD_GET_JOBS\w*)\s.*?count:\s*(\d+)", re.MULTILINE)
"""What squeue asks slurmctld, and sacct slurmdbd."""
_PATIENCE = 600.0
_SETTLE = 75.0
"""Seconds until the queue is asked no more often than it is asked for hours."""


def asked(cluster: Cluster) -> dict[str, int]:
    """Return how many queries of each kind the cluster has answered."""
    said = cluster.run(["sdiag"]).stdout + cluster.run(["sacctmgr", "show", "stats"]).stdout
    return {name: int(count) for name, count in _QUERIES.findall(said)}


def since(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """Return the queries made in between."""
    found = {name: count - before.get(name, 0) for name, count in now.items()}
    return {name: count for name, count in found.items() if count}


@contextmanager
def large_nodes(cores: int) -> Iterator[None]:
    """Let the nodes promise so many cores that all jobs run at once; the machine need not have them.

    Memory is not sampled: without cgroups each job's slurmstepd reads all of /proc for that, every second, and 600 of
    them kept two cores from doing anything else.
    """
    text = render.slurm_conf

    def changed(layout: Layout) -> str:
        large = text(layout).replace("CoresPerSocket=8", f"CoresPerSocket={cores}")
        return large.replace("JobAcctGatherFrequency=task=1", "JobAcctGatherFrequency=0")

    render.slurm_conf = changed
    try:
        yield
    finally:
        render.slurm_conf = text


def _jobs(place: Target, workdir: Path, count: int) -> list[JobHandle]:
    """Submit jobs that all wait, at no cost, until somebody opens the gate."""
    gate = workdir / "gate"
    os.mkfifo(gate)
    plan = LaunchPlan(script=f"exec cat '{gate}'\n", payload=("true",))

    def one(number: int) -> JobHandle:
        identity = JobIdentity(run_id="benchmark", step=f"waits{number}")
        spec = JobSpec(identity, plan, Activation(), sbatch=(("mem", "16"), ("time", "30")))
        return submit(place, spec)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(count)))


def _until(watches: list[Watch], phase: Phase) -> None:
    deadline = time.monotonic() + _PATIENCE
    while any(watch.observation.phase is not phase for watch in watches):
        over = [watch.handle.file("stderr.log") for watch in watches if watch.observation.terminal]
        if over or time.monotonic() > deadline:
            raise RuntimeError(f"not all jobs are {phase.value}; {len(over)} have ended: see {over[:3]}")
        time.sleep(0.2)


def _ended(watch: Watch) -> str:
    while True:
        event = watch.next(timeout=_PATIENCE)
        if event is None:
            raise TimeoutError(f"job {watch.handle.job_id} does not end")
        if isinstance(event, Ended):
            return event.observation.state


def measure_on_slurm(count: int, seconds: float, operations: float) -> dict[str, object]:
    """Submit jobs, watch them for a while, let them end; return the figures."""
    with large_nodes(count), lab() as setting:
        cluster, workdir = setting.cluster, setting.project / "work"
        workdir.mkdir()
        host = RemoteHost(SubprocessDialer(env={**os.environ, "SLURM_CONF": str(cluster.slurm_conf)}))
        satellite, limits = Satellite(host), Limits()
        budget = Budget(f"{workdir}/queue/budget.json", limits.queries_per_minute, limits.burst)
        scheduler = SlurmScheduler(f"{workdir}/queue", budget)
        watcher = Watcher(satellite, scheduler, operations_per_second=operations)
        first, began = asked(cluster), time.monotonic()
        handles = _jobs(Target(satellite, scheduler, watcher, str(workdir)), workdir, count)
        submitted = time.monotonic() - began
        watches = [watcher.watch(handle) for handle in handles]
        _until(watches, Phase.RUNNING)
        running = time.monotonic() - began
        time.sleep(_SETTLE)
        steady, steady_began = asked(cluster), time.monotonic()
        time.sleep(seconds)
        queries = sum(since(steady, asked(cluster)).values())
        minutes = (time.monotonic() - steady_began) / 60
        (workdir / "gate").write_text("")
        states = [_ended(watch) for watch in watches]
        whole = since(first, asked(cluster))
        host.close()
        return {
            "jobs": count,
            "states": dict(Counter(states)),
            "submitted_s": round(submitted, 1),
            "all_running_s": round(running, 1),
            "watched_minutes": round(minutes, 2),
            "queries_per_minute": round(queries / minutes, 2),
            "whole_minutes": round((time.monotonic() - began) / 60, 2),
            "whole_queries": whole,
        }
