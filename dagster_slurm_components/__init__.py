"""Short YAML files become Dagster assets that run unchanged on a laptop, a staging cluster and a supercomputer.

Names are imported on first use, so that importing the package costs nothing: no SSH library, no Dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_slurm_components.component.host_paths import HostPathIOManager
    from dagster_slurm_components.component.maintenance import slurm_maintenance
    from dagster_slurm_components.component.script_component import SlurmScriptComponent
    from dagster_slurm_components.errors import DagsterSlurmError
    from dagster_slurm_components.executor.definition import slurm_executor
    from dagster_slurm_components.pipes.client import ComputeJob
    from dagster_slurm_components.pipes.results import CompletedJob
    from dagster_slurm_components.pipes.sensor import parked_hosts_sensor, slurm_jobs_sensor
    from dagster_slurm_components.resource import ComputeResource, PayloadArguments
    from dagster_slurm_components.spec.environments import (
        CondaEnvironment,
        ContainerEnvironment,
        CurrentEnvironment,
        EnvironmentSpec,
        ModulesEnvironment,
        PathEnvironment,
        PixiEnvironment,
        UvEnvironment,
    )
    from dagster_slurm_components.spec.launchers import (
        BashLauncher,
        LauncherSpec,
        RayLauncher,
        SrunLauncher,
        TorchrunLauncher,
    )
    from dagster_slurm_components.spec.problems import SpecError
    from dagster_slurm_components.spec.resources import Resources

_HOME = {
    "BashLauncher": "spec.launchers",
    "CompletedJob": "pipes.results",
    "ComputeJob": "pipes.client",
    "ComputeResource": "resource",
    "CondaEnvironment": "spec.environments",
    "ContainerEnvironment": "spec.environments",
    "CurrentEnvironment": "spec.environments",
    "DagsterSlurmError": "errors",
    "EnvironmentSpec": "spec.environments",
    "HostPathIOManager": "component.host_paths",
    "LauncherSpec": "spec.launchers",
    "ModulesEnvironment": "spec.environments",
    "PathEnvironment": "spec.environments",
    "PayloadArguments": "resource",
    "PixiEnvironment": "spec.environments",
    "RayLauncher": "spec.launchers",
    "Resources": "spec.resources",
    "SlurmScriptComponent": "component.script_component",
    "SpecError": "spec.problems",
    "SrunLauncher": "spec.launchers",
    "TorchrunLauncher": "spec.launchers",
    "UvEnvironment": "spec.environments",
    "parked_hosts_sensor": "pipes.sensor",
    "slurm_executor": "executor.definition",
    "slurm_jobs_sensor": "pipes.sensor",
    "slurm_maintenance": "component.maintenance",
}
"""The module that each public name lives in."""

__all__ = [
    "BashLauncher",
    "CompletedJob",
    "ComputeJob",
    "ComputeResource",
    "CondaEnvironment",
    "ContainerEnvironment",
    "CurrentEnvironment",
    "DagsterSlurmError",
    "EnvironmentSpec",
    "HostPathIOManager",
    "LauncherSpec",
    "ModulesEnvironment",
    "PathEnvironment",
    "PayloadArguments",
    "PixiEnvironment",
    "RayLauncher",
    "Resources",
    "SlurmScriptComponent",
    "SpecError",
    "SrunLauncher",
    "TorchrunLauncher",
    "UvEnvironment",
    "parked_hosts_sensor",
    "slurm_executor",
    "slurm_jobs_sensor",
    "slurm_maintenance",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names too, so that ``dg list components`` finds the component."""
    return sorted({*globals(), *__all__})
