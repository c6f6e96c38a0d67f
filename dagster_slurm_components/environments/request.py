"""What plans an environment is told: the script's wish, and what the host is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from dagster_slurm_components.environments.content import Interpreter, Platform
from dagster_slurm_components.spec.environments import EnvironmentSpec

Progress = Callable[[str, int, int], None]
"""Called with a stage (``fetch``, ``upload``, ``build``), the bytes done and all bytes; a build has neither."""

Spec = TypeVar("Spec", bound=EnvironmentSpec)


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Request(Generic[Spec]):
    """An environment that a script needs.

    Attributes:
        spec: As the user wrote it.
        base: Returns where the relative path in a field of the spec starts.
    """

    spec: Spec
    base: Callable[[str], Path]

    @property
    def groundwork(self) -> Mapping[str, object]:
        """The modules and setup commands that the environment is made under, as part of what it is."""
        return {name: value for name in ("modules", "setup") if (value := getattr(self.spec, name))}

    def path(self, name: str) -> Path:
        """Return the absolute path that a field of the spec names."""
        return (self.base(name) / Path(getattr(self.spec, name)).expanduser()).absolute()


@dataclass(frozen=True)
class HostPlatform:
    """What the host answered: its platform and its Pythons, the preferred one first; and the working folder there."""

    platform: Platform
    interpreters: tuple[Interpreter, ...]
    workdir: str

    @classmethod
    def read(cls, answer: Mapping[str, Any], workdir: str) -> HostPlatform:
        """Read the builder's answer."""
        major, minor = answer["libc_version"]
        platform = Platform(answer["system"], answer["machine"], answer["libc"], (int(major), int(minor)))
        return cls(platform, tuple(Interpreter(**row) for row in answer["interpreters"]), workdir)
