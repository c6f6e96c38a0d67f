"""A profile, ready to run jobs: the host's satellite, the scheduler and the watcher, one of each a process."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Budget, Satellite
from dagster_slurm_components.hosts.connect import connect
from dagster_slurm_components.jobs.cadence import TokenBucket
from dagster_slurm_components.jobs.schedulers import ProcessScheduler, Scheduler, SlurmScheduler
from dagster_slurm_components.jobs.watch import Watcher, WatcherThread
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_targets: dict[str, Target] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Target:
    """Where jobs of a profile run.

    Attributes:
        satellite: The host.
        scheduler: Who runs the job scripts.
        watcher: Looks after this process's jobs there.
        workdir: The working folder on the host, absolute.
    """

    satellite: Satellite
    scheduler: Scheduler
    watcher: WatcherThread
    workdir: str


def target(loaded: LoadedProfile) -> Target:
    """Return the target of a profile; all steps of a process share it.

    Raises:
        HostError: The host can't be reached, or refuses.
        DagsterSlurmError: ``workdir`` has no absolute meaning on the host.
    """
    profile = loaded.profile
    key = profile.model_dump_json(include={"host", "scheduler", "workdir", "limits", "park_timeout"})
    with _lock:
        if key not in _targets:
            _targets[key] = _make(profile)
        return _targets[key]


def _make(profile: Profile) -> Target:
    satellite = Satellite(connect(profile.host))
    workdir = absolute_workdir(profile.workdir, satellite)
    queue, limits = f"{workdir}/queue", profile.limits
    scheduler: Scheduler
    if profile.scheduler == "slurm":
        budget = Budget(f"{queue}/budget.json", limits.queries_per_minute, limits.burst)
        scheduler = SlurmScheduler(queue, budget, limits.max_submit_jobs)
    else:
        scheduler = ProcessScheduler(queue, limits.max_submit_jobs)
    watcher = Watcher(
        satellite,
        scheduler,
        budget=TokenBucket(profile.limits.queries_per_minute, profile.limits.burst),
        operations_per_second=profile.limits.file_operations_per_second,
        patience=scheduler.patience,
        park_timeout=duration_seconds(profile.park_timeout),
    )
    return Target(satellite, scheduler, WatcherThread(watcher), workdir)


def absolute_workdir(workdir: str, satellite: Satellite) -> str:
    """Return the working folder with ``~`` and the host's variables (``$SCRATCH``) filled in.

    Raises:
        DagsterSlurmError: It has no absolute meaning there.
    """
    names = [braced or plain for braced, plain in _VARIABLE.findall(workdir)]
    if names or workdir.startswith("~"):
        facts = satellite.hello(names)
        missing = [name for name in names if name not in facts.environment]
        if missing:
            raise DagsterSlurmError(
                f"the profile's workdir is {workdir}, but ${missing[0]} is not set there",
                where=satellite.host.name,
                hint="Write the path out; variables that only a login shell sets are not known to sshd's commands.",
            )
        workdir = _VARIABLE.sub(lambda match: facts.environment[match[1] or match[2]], workdir)
        if workdir == "~" or workdir.startswith("~/"):
            workdir = facts.home + workdir[1:]
    if not workdir.startswith("/"):
        raise DagsterSlurmError(
            f"the profile's workdir {workdir!r} is not absolute",
            where=satellite.host.name,
            hint="Write an absolute path, or one that begins with `~/` or a variable such as `$SCRATCH`.",
        )
    return workdir.rstrip("/")
