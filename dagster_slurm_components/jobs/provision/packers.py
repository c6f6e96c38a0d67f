"""Which packer plans which type of environment."""

from __future__ import annotations

from ...errors import DagsterSlurmError
from ...spec.environments import (
    CondaEnvironment,
    ContainerEnvironment,
    EnvironmentSpec,
    PixiEnvironment,
    UvEnvironment,
)
from .request import Packer


def is_content(spec: EnvironmentSpec) -> bool:
    """Return whether an environment is made by us; others are only activated."""
    if isinstance(spec, ContainerEnvironment):
        return spec.is_sent
    return isinstance(spec, UvEnvironment | PixiEnvironment | CondaEnvironment)


def packer_of(spec: EnvironmentSpec) -> Packer:
    """Return the packer of an environment; each is imported on use only."""
    if isinstance(spec, UvEnvironment):
        from .uv import UvPacker  # noqa: PLC0415

        return UvPacker()
    if isinstance(spec, PixiEnvironment):
        from .pixi import PixiPacker  # noqa: PLC0415

        return PixiPacker()
    if isinstance(spec, CondaEnvironment):
        from .conda import CondaPacker  # noqa: PLC0415

        return CondaPacker()
    if isinstance(spec, ContainerEnvironment):
        from .container import ContainerPacker  # noqa: PLC0415

        return ContainerPacker()
    raise DagsterSlurmError(f"environments of type `{spec.type}` are not made by packing")
