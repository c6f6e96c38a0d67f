"""Finds the run that a person names, and tells whether its jobs may be taken up."""

from __future__ import annotations

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.pipes.advice import FORGOTTEN, attach_command
from dagster_slurm_components.pipes.orphans import end_if_dead
from dagster_slurm_components.pipes.retries import children

_SHORTEST = 4
"""Characters of a run's id that name it, here as in `dg-slurm jobs`."""
_MOST_NAMED = 10
_MOST_ANCESTORS = 64

_FROM_FAILURE = "dagster/is_resume_retry"
"""Dagster's own tag of a run that went on where another failed, also of the daemon's retries (1.13)."""


def find_run(instance: dg.DagsterInstance, name: str) -> dg.DagsterRun:
    """Return the run that a person names, by its id or the beginning of that.

    Raises:
        DagsterSlurmError: There is none, or there are several.
    """
    run = instance.get_run_by_id(name)
    if run is not None:
        return run
    # Dagster's storage knows no search by a beginning (1.13); ids alone are one quick query.
    known = instance.get_run_ids() if len(name) >= _SHORTEST else []
    found = [run_id for run_id in known if run_id.startswith(name)]
    if len(found) > 1:
        first = ", ".join(sorted(found)[:_MOST_NAMED]) + ("..." if len(found) > _MOST_NAMED else "")
        raise DagsterSlurmError(f"{name!r} names {len(found)} runs: {first}", hint="Write more of the id.")
    run = instance.get_run_by_id(found[0]) if found else None
    if run is None:
        raise DagsterSlurmError(
            f"there is no run {name!r} in {instance.root_directory}",
            hint=f"Is DAGSTER_HOME the folder with which it was launched? {FORGOTTEN} "
            f"Of an id, {_SHORTEST} characters are enough.",
        )
    return run


def run_to_take_up(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    """Make sure that a run is over and left something behind; return it as it is then.

    A run whose worker is proven dead is ended here.

    Raises:
        DagsterSlurmError: It is not over, it succeeded, or another run went on for it.
    """
    if run.is_success:
        raise DagsterSlurmError(f"run {run.run_id} has succeeded: there is nothing to take up")
    if not run.is_finished:
        end_if_dead(instance, run)
        run = instance.get_run_by_id(run.run_id) or run  # somebody else may have found it dead meanwhile
    if not run.is_finished:
        raise DagsterSlurmError(
            f"run {run.run_id} is {run.status.value}, and its process is not known to be dead",
            hint="End it first: Ctrl-C where `dg launch` runs, or terminate it in Dagster. Of a process on another "
            "machine nothing is known here: mark its run as failed or cancelled in Dagster's UI.",
        )
    heir = _heir(instance, run)
    if heir is not None:
        stopped = heir.is_finished and not heir.is_success
        raise DagsterSlurmError(
            f"run {heir.run_id} went on for run {run.run_id}, and is {heir.status.value}",
            hint=f"To go on from there: {attach_command(heir.run_id)}" if stopped else None,
        )
    if _all_succeeded(instance, run):
        raise DagsterSlurmError(f"each step of run {run.run_id} has succeeded: there is nothing to take up")
    return run


def _heir(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun | None:
    """Return the last of the runs that went on from a run's failure, one for another."""
    last = None
    for _ in range(_MOST_ANCESTORS):
        found = [each for each in children(instance, last or run) if each.tags.get(_FROM_FAILURE) == "true"]
        if not found:
            break
        last = found[0]
    return last


def _all_succeeded(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether nothing is left to do, as after a process that died between its last step and its run's end."""
    steps = run.step_keys_to_execute
    if not steps:
        return False
    success = dg.DagsterEventType.STEP_SUCCESS
    done = {entry.step_key for entry in instance.all_logs(run.run_id, of_type=success)}
    return set(steps) <= done
