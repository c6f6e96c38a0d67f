"""The job that a person means."""

import re
from collections.abc import Sequence

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.model import slug
from dagster_slurm_components.jobs.records import RunDirectory, observed, run_directories
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.spec.cross_checks import asset_step

ELEMENT = re.compile(r"(?P<job>[^/_]+)_(?P<number>[0-9]+)")
"""The id of an element of an array."""


def find_job(
    place: Target, name: str, *, by_asset: bool = True, whole: bool = True
) -> tuple[RunDirectory, JobInfo | None]:
    """Return the newest job that a person means, or the element of an array: ``123_4``.

    Raises:
        DagsterSlurmError: There is none, or several, or an array where it can't be a ``whole`` one.
    """
    known = run_directories(place)
    array = ELEMENT.fullmatch(name)
    if array is not None:
        arrays = [each.element(int(array["number"]), place) for each in known if each.is_job(array["job"])]
        folders = [each for each in arrays if each is not None]
    else:
        folders = meant(known, name, by_asset=by_asset)
    if not folders:
        raise DagsterSlurmError(
            f"no job {name!r} below {place.workdir}",
            where=place.satellite.host.name,
            hint="`dg-slurm jobs list --all` names those there are; `--profile` chooses where to look.",
        )
    if len({folder.step for folder in folders}) > 1:
        steps = ", ".join(f"{folder.step} (job {folder.ledger.job_id})" for folder in folders)
        raise DagsterSlurmError(f"{name!r} has several jobs: {steps}", hint="Name one by its job's id.")
    if not whole and (elements := folders[-1].lease.note.elements):
        job_id = folders[-1].ledger.job_id
        raise DagsterSlurmError(f"{job_id} is an array: name one of {job_id}_[{elements}], as {job_id}_0")
    return observed(place, folders[-1:])[0]


def meant(known: Sequence[RunDirectory], name: str, *, by_asset: bool = True) -> list[RunDirectory]:
    """Return the run directories of a job, of one run and those that re-execute it, or of an asset."""
    jobs_named = [each for each in known if each.is_job(name)]
    if jobs_named:
        return jobs_named
    found = [each for each in known if each.runs_named(name)]
    if len({each.run_id for each in found}) > 1:
        runs = sorted(frozenset().union(*(each.runs_named(name) for each in found)))
        raise DagsterSlurmError(
            f"{name!r} names {len(runs)} runs: {', '.join(runs)}", hint="Write more of the id."
        )
    if not found and by_asset:
        steps = {name, slug(asset_step(name))}
        found = [each for each in known if each.step in steps]
    return found
