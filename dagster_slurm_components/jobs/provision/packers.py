"""Which packer plans which type of environment."""

from __future__ import annotations

from ...errors import DagsterSlurmError
from ...spec.environments import EnvironmentSpec, UvEnvironment
from .request import Packer


def is_content(spec: EnvironmentSpec) -> bool:
    """Return whether an environment is made by us; others are only activated."""
    return isinstance(spec, UvEnvironment)


def packer_of(spec: EnvironmentSpec) -> Packer:
    """Return the packer of an environment."""
    if isinstance(spec, UvEnvironment):
        from .uv import UvPacker  # noqa: PLC0415 - on use only

        return UvPacker()
    raise DagsterSlurmError(f"environments of type `{spec.type}` are not made by packing")
