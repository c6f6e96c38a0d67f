"""What an environment is asked for with: the spec, its place in the project, and what it is made under."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.environments.content import EnvironmentPlan, Interpreter, Platform
from dagster_slurm_components.jobs.provision.progress import Progress, silent
from dagster_slurm_components.spec.environments import EnvironmentSpec


@dataclass(frozen=True)
class Request:
    """An environment that a script needs.

    Attributes:
        spec: As the user wrote it.
        base: Returns where the relative path in a field of the spec starts.
        under: Modules and setup commands that are loaded for the build as they will be in the job.
    """

    spec: EnvironmentSpec
    base: Callable[[str], Path]
    under: Activation = field(default_factory=Activation)

    @property
    def groundwork(self) -> Mapping[str, object]:
        """What the environment is made under, as part of what it is."""
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
        libc_version = answer["libc_version"]
        return cls(
            Platform(
                answer["system"],
                answer["machine"],
                answer["libc"],
                (int(libc_version[0]), int(libc_version[1])),
            ),
            tuple(Interpreter(**found) for found in answer["interpreters"]),
            workdir,
        )


class Packer(Protocol):
    """Turns one kind of environment into a plan. Reads this machine's files and may run packing programs."""

    def inputs(self, request: Request) -> list[object] | None:
        """Return JSON values that change whenever the plan would: no packer runs, nothing is fetched.

        None where that can't be told so quickly; then the plan is made each time.
        """

    def plan(self, request: Request, host: HostPlatform, progress: Progress = silent) -> EnvironmentPlan:
        """Return the plan.

        Raises:
            EnvironmentFailedError: The lock is missing or outdated, the packer is not there, nothing fits.
        """
