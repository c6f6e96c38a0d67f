"""The `bash` launcher: the payload once, as a plain process on the job's first node."""

from __future__ import annotations

from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan
from dagster_slurm_components.launchers.shipped import shell
from dagster_slurm_components.spec.launchers import BashLauncher


def plan_bash(launcher: BashLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Return how the payload starts; the launcher has nothing to add."""
    return LaunchPlan(script=shell("launch_bash.sh"), payload=payload)
