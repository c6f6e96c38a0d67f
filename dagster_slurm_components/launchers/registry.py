"""Which planner belongs to which launcher; other packages add launchers through an entry point.

A package adds a launcher by one entry point in the group ``dagster_slurm_components.launchers``: its name is the
launcher's ``type``, its object a subclass of ``LauncherSpec`` that has a method ``plan(payload, context)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.launchers.base import LaunchContext, LaunchPlan
from dagster_slurm_components.launchers.plans import plan_bash, plan_ray, plan_srun, plan_torchrun
from dagster_slurm_components.spec.launchers import (
    BashLauncher,
    LauncherSpec,
    RayLauncher,
    SrunLauncher,
    TorchrunLauncher,
)

_Planner = Callable[[Any, tuple[str, ...], LaunchContext], LaunchPlan]

_SHIPPED: dict[type[LauncherSpec], _Planner] = {
    BashLauncher: plan_bash,
    SrunLauncher: plan_srun,
    TorchrunLauncher: plan_torchrun,
    RayLauncher: plan_ray,
}


@runtime_checkable
class PlansItself(Protocol):
    """A launcher from another package: the model brings its planner along."""

    def plan(self, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
        """Return how the payload starts inside the job."""


def plan(launcher: LauncherSpec, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Return how a payload starts inside the job.

    Args:
        launcher: The launcher's spec.
        payload: The payload's argument list (see ``payload_argv``).
        context: What the job asks for, and who runs it.

    Raises:
        DagsterSlurmError: The launcher can't be planned for.
    """
    if isinstance(launcher, PlansItself):
        made = launcher.plan(payload, context)
    else:
        planner = next((_SHIPPED[kind] for kind in type(launcher).__mro__ if kind in _SHIPPED), None)
        if planner is None:
            raise DagsterSlurmError(
                f"the launcher {launcher.type} has no method `plan`",
                where=f"{type(launcher).__module__}.{type(launcher).__qualname__}",
                hint="See docs/how-to/add-a-launcher.md.",
            )
        made = planner(launcher, payload, context)
    if "--" in made.options:
        raise DagsterSlurmError(f"an option of the launcher {launcher.type} is exactly `--`")
    return made
