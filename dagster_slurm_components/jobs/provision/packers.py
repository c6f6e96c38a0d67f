"""Which packer plans which type of environment."""

from __future__ import annotations

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.provision.request import Packer
from dagster_slurm_components.spec.environments import (
    CondaEnvironment,
    ContainerEnvironment,
    EnvironmentSpec,
    PixiEnvironment,
    UvEnvironment,
)


def is_content(spec: EnvironmentSpec) -> bool:
    """Return whether an environment is made by us; others are only activated."""
    if isinstance(spec, ContainerEnvironment):
        return spec.is_sent
    return isinstance(spec, UvEnvironment | PixiEnvironment | CondaEnvironment)


def packer_of(spec: EnvironmentSpec) -> Packer:
    """Return the packer of an environment; each is imported on use only."""
    if isinstance(spec, UvEnvironment):
        from dagster_slurm_components.jobs.provision.uv import UvPacker  # noqa: PLC0415

        return UvPacker()
    if isinstance(spec, PixiEnvironment):
        from dagster_slurm_components.jobs.provision.pixi import PixiPacker  # noqa: PLC0415

        return PixiPacker()
    if isinstance(spec, CondaEnvironment):
        from dagster_slurm_components.jobs.provision.conda import CondaPacker  # noqa: PLC0415

        return CondaPacker()
    if isinstance(spec, ContainerEnvironment):
        from dagster_slurm_components.jobs.provision.container import ContainerPacker  # noqa: PLC0415

        return ContainerPacker()
    raise DagsterSlurmError(f"environments of type `{spec.type}` are not made by packing")
