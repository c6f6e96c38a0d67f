"""How the payload starts inside the job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dagster_slurm_components.spec.base import Model, Text
from dagster_slurm_components.spec.place import Path
from dagster_slurm_components.spec.registry import Choice, Registry
from dagster_slurm_components.spec.resources import Resources


class LauncherSpec(Model):
    """The base of all launchers; ``type`` chooses one."""

    type: str = Field(description="Which launcher.", examples=["bash"])

    def disagreements(self, resources: Resources) -> Iterator[tuple[Path, str]]:
        """Yield where the resources don't fit this launcher: the path in the script, and what is wrong there.

        ``dg-slurm check`` and Dagster's loading report them before anything is queued.
        """
        yield from ()


class BashLauncher(LauncherSpec):
    """Starts the payload once, on the job's first node, as a plain process."""

    type: Literal["bash"] = Field(default="bash", description="Which launcher.", examples=["bash"])
    interpreter: list[Text] | None = Field(
        default=None,
        description=(
            "Command that runs the payload file; else `.py` runs in the environment's Python, `.sh` in bash,"
            " and anything else by itself."
        ),
        examples=[["Rscript", "--vanilla"]],
    )


LAUNCHERS: Registry[LauncherSpec] = Registry(
    "launcher", "dagster_slurm_components.launchers", (BashLauncher,), default="bash"
)
"""Model by launcher type."""

Launcher = Annotated[LauncherSpec, Choice(LAUNCHERS)]
"""A field that holds any launcher."""
