"""All jobs that left a run directory on a host, as their own files tell of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.lease import (
    COLLECTED,
    LEASE,
    LEDGER,
    Lease,
    LedgerRecord,
    parse_ledger,
    read_lease,
)
from dagster_slurm_components.jobs.look import JobInfo, observe
from dagster_slurm_components.jobs.model import CALL, LEFT_JOBS, tasks_of
from dagster_slurm_components.jobs.status import STATUS, StatusRecord, parse_status, read_statuses
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.slurm.arrays import numbers_in

_PLACE = re.compile(
    f"(?P<run>[^/]+)/(?P<step>[^/]+)(/(?P<partition>[^/=]+))?(/{CALL}(?P<call>[0-9]+))?/(?P<attempt>[0-9]+)"
)
"""A run directory below ``runs``; a payload may bring a file of a ledger's name, somewhere below one."""
_AT_ONCE = 1000
_TRIES = 5
"""A folder that is renamed while `find` reads (a job is submitted, another removed) is an error to it, whatever its
options (findutils 4.9)."""
_MOST = 256 * 1024
_SHORTEST = 4
"""Characters of a run's id that name it."""


@dataclass(frozen=True)
class RunDirectory:
    """One run directory, by its path and the records in it.

    Attributes:
        run_id: Dagster's first run, or of a left job the one that submitted it; as step and partition it is written as
            it stands in the path.
        call: The number of the call in the step.
        status: The newest block of its status file.
        touched: When one of its records was last written, in seconds since the epoch by the host's clock.
    """

    path: str
    run_id: str
    step: str
    partition: str | None
    call: int
    attempt: int
    ledger: LedgerRecord
    status: StatusRecord | None
    lease: Lease
    touched: float

    @property
    def collected(self) -> bool:
        """Whether Dagster has stored its results."""
        return self.lease.state == COLLECTED

    def element(self, number: int, place: Target) -> RunDirectory | None:
        """Return an element of an array, whose lease is the array's; nothing where there is none of that number."""
        note, array = self.lease.note, self.ledger.handle(self.path)
        tasks = tasks_of(numbers_in(note.elements), note.keys_per_task)
        task = next((task for task in tasks if number in task), None)
        if task is None or array is None:
            return None
        job = array.element(number, place.scheduler.task_id(array.job_id, task[0]))
        (status,) = read_statuses(place.satellite, [job])
        ledger = replace(self.ledger, job_id=job.job_id)
        return replace(self, path=job.run_dir, ledger=ledger, status=status, lease=Lease())

    def is_job(self, name: str) -> bool:
        """Whether a person means this one, by the job's id or by the folder."""
        return name in (self.ledger.job_id, self.path)

    def runs_named(self, name: str) -> frozenset[str]:
        """Return which of its runs a person may mean, by a run's id or the beginning of that."""
        # A run that re-executes another goes on in the folder of the first.
        runs = {self.run_id, self.lease.owner.run_id if self.lease.owner else self.run_id}
        return frozenset(run_id for run_id in runs if len(name) >= _SHORTEST and run_id.startswith(name))


def run_directories(place: Target) -> list[RunDirectory]:
    """Return all run directories of a working folder, the oldest first.

    Raises:
        HostError: The host gives no answer.
        DagsterSlurmError: The folder can't be listed.
    """
    top = PurePosixPath(place.workdir, "runs")
    find = ["find", str(top), "-mindepth", "3", "-maxdepth", "6", "-type", "f", "-name", LEDGER, "-print0"]
    for _ in range(_TRIES):
        done = place.satellite.run(find, timeout=120.0)
        if done.timed_out or not done.returncode:
            break
    if done.timed_out or done.truncated or (done.returncode and exists(place, str(top))):
        error = done.stderr.decode("utf-8", "replace").strip()
        raise DagsterSlurmError(f"{top} can't be listed: {error}", where=place.satellite.host.name)
    listed = done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    folders = [str(PurePosixPath(path).parent.relative_to(top)) for path in listed]
    places = [found for folder in folders if (found := _PLACE.fullmatch(folder))]
    directories = []
    for begin in range(0, len(places), _AT_ONCE):
        directories += _read(place, f"{top}", places[begin : begin + _AT_ONCE])
    return sorted(directories, key=lambda each: each.ledger.submitted or each.touched)


def exists(place: Target, path: str) -> bool:
    """Return whether there is a file or folder of that name."""
    return place.satellite.read([FileRead(path, 0, 0)])[0].exists


def _read(target: Target, top: str, places: Sequence[re.Match[str]]) -> list[RunDirectory]:
    paths = [f"{top}/{place[0]}/{name}" for place in places for name in (LEDGER, STATUS, LEASE)]
    files = iter(target.satellite.read([FileRead(path, 0, _MOST) for path in paths]))
    return [
        RunDirectory(
            path=f"{top}/{place[0]}",
            run_id=_run(place, parsed := read_lease(lease.data)),
            step=place["step"],
            partition=place["partition"],
            call=int(place["call"] or 0),
            attempt=int(place["attempt"]),
            ledger=parse_ledger(ledger.data),
            status=parse_status(status.data),
            lease=parsed,
            touched=max(ledger.mtime, status.mtime, lease.mtime),
        )
        for place, ledger, status, lease in zip(places, files, files, files, strict=True)
    ]


def _run(place: re.Match[str], lease: Lease) -> str:
    """Return the first run, by the path; the attempts at a left job have one folder for all runs."""
    in_path: str = place["run"]
    return lease.owner.run_id if in_path.startswith(LEFT_JOBS) and lease.owner else in_path


def observed(
    place: Target, folders: Sequence[RunDirectory], max_age: float | None = None
) -> list[tuple[RunDirectory, JobInfo | None]]:
    """Return run directories with what is known of their jobs now, as ``observe``; nothing where none was submitted."""
    handles = [(folder.ledger.handle(folder.path), folder.status) for folder in folders]
    jobs = [(handle, status) for handle, status in handles if handle is not None]
    infos = observe(place, jobs, max_age=max_age)
    return [(folder, infos.get(folder.path)) for folder in folders]
