"""A profile, ready to run jobs: the host's satellite, the scheduler and the watcher, one of each a process."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from dataclasses import dataclass, replace
from functools import partial

from dagster_slurm_components.errors import DagsterSlurmError, HostRefusedError
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.attempts import note_waiting
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.connect import ProfileHost, connect
from dagster_slurm_components.hosts.parked import ParkedHost, Parking
from dagster_slurm_components.hosts.satellite.calls import Budget
from dagster_slurm_components.jobs.lease import LeaseStore
from dagster_slurm_components.jobs.schedulers import ProcessScheduler, Scheduler, SlurmScheduler
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")
_targets: dict[str, Target] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Target:
    """Where jobs of a profile run.

    Attributes:
        satellite: The host; calls of a step wait while it can't be reached.
        scheduler: Who runs the job scripts.
        watcher: Looks after this process's jobs there; it waits for a lost host by itself.
        workdir: The working folder on the host, absolute.
        slots: What this machine's own processes share: a job holds one. A scheduler needs none.
    """

    satellite: Satellite
    scheduler: Scheduler
    watcher: Watcher
    workdir: str
    slots: threading.Semaphore | None = None

    @property
    def direct(self) -> Target:
        """The same, with a host whose calls fail at once where it can't be reached."""
        return replace(self, satellite=self.watcher.satellite)

    @property
    def leases(self) -> LeaseStore:
        """The leases on the host."""
        return LeaseStore(self.satellite, self.workdir)


def target(loaded: LoadedProfile, parking: Parking | None = None) -> Target:
    """Return the target of a profile; all steps of a process share what is behind it.

    ``parking`` says how to wait for a host that can't be reached; without it that is an error.

    Raises:
        HostError: The host can't be reached, or refuses.
        DagsterSlurmError: ``workdir`` has no absolute meaning on the host.
    """
    profile = loaded.profile
    key = loaded.name + profile.model_dump_json(
        include={"host", "scheduler", "workdir", "limits", "park_timeout"}
    )
    with _lock:
        shared = _targets.get(key)
    if shared is None:
        # Without the lock: it may wait for its host, and others have other hosts.
        made = _make(loaded, parking)
        with _lock:
            shared = _targets.setdefault(key, made)
    return replace(shared, satellite=_patient(shared.satellite, loaded.name, parking))


def _make(loaded: LoadedProfile, parking: Parking | None) -> Target:
    profile, satellite = loaded.profile, satellite_of(loaded)
    workdir = absolute_workdir(profile.workdir, _patient(satellite, loaded.name, parking))
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
        operations_per_second=limits.file_operations_per_second,
        park_timeout=duration_seconds(profile.park_timeout),
        note=partial(_note_waiting, satellite.host.name, loaded.name),
    )
    return Target(satellite, scheduler, watcher, workdir, _slots(profile))


def _slots(profile: Profile) -> threading.Semaphore | None:
    """Return how many jobs a process of ours starts at once on this machine: by default one a core.

    On a host behind ssh nobody counts its cores for us, and Slurm counts by itself.
    """
    if profile.scheduler == "slurm" or not isinstance(profile.host, LocalHost):
        return None
    return threading.Semaphore(profile.limits.max_submit_jobs or os.cpu_count() or 1)


def satellite_of(loaded: LoadedProfile) -> Satellite:
    """Return the satellite on a profile's host; the host's errors name the profile."""
    return Satellite(ProfileHost(connect(loaded.profile.host), loaded.name))


def _patient(satellite: Satellite, profile: str, parking: Parking | None) -> Satellite:
    if parking is None:
        return satellite
    note = partial(_note_waiting, satellite.host.name, profile)
    return Satellite(ParkedHost(satellite.host, parking, note))


def _note_waiting(host: str, profile: str) -> None:
    # A container may have no place to write to; nobody looks there, either.
    with contextlib.suppress(HostRefusedError, OSError):
        note_waiting(place.folder(), host, profile)


def absolute_workdir(workdir: str, satellite: Satellite, what: str = "the profile's workdir") -> str:
    """Return the working folder, or ``what`` else it is, with ``~`` and the host's variables (``$SCRATCH``) filled in.

    Raises:
        DagsterSlurmError: It has no absolute meaning there.
    """
    names = [name.strip("{}") for name in _VARIABLE.findall(workdir)]
    if names or workdir.startswith("~"):
        facts = satellite.hello(names)
        missing = [name for name in names if name not in facts.environment]
        if missing:
            raise DagsterSlurmError(
                f"{what} is {workdir}, but ${missing[0]} is not set there",
                where=satellite.host.name,
                hint="Write the path out; variables that only a login shell sets are not known to sshd's commands.",
            )
        workdir = _VARIABLE.sub(lambda match: facts.environment[match[1].strip("{}")], workdir)
        if workdir == "~" or workdir.startswith("~/"):
            workdir = facts.home + workdir[1:]
    if not workdir.startswith("/"):
        raise DagsterSlurmError(
            f"{what} {workdir!r} is not absolute",
            where=satellite.host.name,
            hint="Write an absolute path, or one that begins with `~/` or a variable such as `$SCRATCH`.",
        )
    return workdir.rstrip("/")
