"""What a step says when it leaves its job: the commands that collect it, or end it."""

from __future__ import annotations

import shlex
from pathlib import PurePath

import dagster as dg

_TEMPORARY = ".tmp_dagster_home_"
"""How the folder begins in which `dg` keeps runs where DAGSTER_HOME is not set; it is removed at the end (1.13)."""
FORGOTTEN = (
    "Without DAGSTER_HOME `dg launch` keeps its run in a temporary folder, which it removes at its end: such a run "
    "can't be taken up. `dg-slurm jobs list --all` shows its jobs, `dg-slurm jobs cancel` ends one."
)
"""Where a run may be that isn't found."""


def left_job(job_id: str, run_id: str, profile: str, *, kept: bool = True) -> str:
    """Return what a step says as it leaves a job that goes on.

    Args:
        job_id: The job.
        run_id: The step's run.
        profile: Name of the profile.
        kept: Whether Dagster remembers the run when this command is over; see ``keeps_runs``.
    """
    left = f"This step ends; job {job_id} goes on."
    cancel = f"To cancel it: {cancel_command(job_id, profile)}"
    if not kept:
        lost = (
            "Dagster keeps no record of this run, as without DAGSTER_HOME, so no run can collect its results."
        )
        return f"{left} {lost}\n{cancel}"
    return f"{left}\nTo collect its results: {attach_command(run_id)}\n{cancel}"


def attach_command(run_id: str) -> str:
    """Return the command that takes up the jobs of a run."""
    return shlex.join(["dg-slurm", "attach", run_id])


def cancel_command(job_id: str, profile: str) -> str:
    """Return the command that cancels a job."""
    return shlex.join(["dg-slurm", "jobs", "cancel", job_id, "--profile", profile])


def keeps_runs(instance: dg.DagsterInstance) -> bool:
    """Whether an instance is still there when the command that opened it is over."""
    if not instance.is_persistent:
        return False
    return not PurePath(instance.root_directory).name.startswith(_TEMPORARY)
