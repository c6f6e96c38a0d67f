"""The software that the payload runs in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dagster_slurm_components.spec.base import Model, Text, Word
from dagster_slurm_components.spec.registry import Choice, Registry


class EnvironmentSpec(Model):
    """The base of all environments; ``type`` chooses one."""

    type: str = Field(description="Which kind of environment.", examples=["current"])
    modules: list[Word] = Field(
        default=[],
        description="Environment modules loaded first, in this order, by `module load`.",
        examples=[["gcc/12.3", "cuda/12.4"]],
    )
    setup: list[Text] = Field(
        default=[],
        description="Shell files of the host, sourced in this order after the modules.",
        examples=[["/opt/site/setup.sh"]],
    )


class CurrentEnvironment(EnvironmentSpec):
    """What the job finds: on the local host the Python that Dagster runs in, elsewhere the host's own."""

    type: Literal["current"] = Field(
        default="current", description="Which kind of environment.", examples=["current"]
    )


class PathEnvironment(EnvironmentSpec):
    """An environment that someone else made on the host: its ``bin`` comes first in ``PATH``."""

    type: Literal["path"] = Field(default="path", description="Which kind of environment.", examples=["path"])
    path: Word = Field(
        description="Folder on the host that holds `bin/`.", examples=["/shared/envs/pytorch-2.5"]
    )


class ModulesEnvironment(EnvironmentSpec):
    """Environment modules of the host."""

    type: Literal["modules"] = Field(
        default="modules", description="Which kind of environment.", examples=["modules"]
    )
    load: list[Word] = Field(
        description="Modules to load, in this order, after those of `modules`.",
        examples=[["python/3.11", "openmpi/4.1"]],
    )


ENVIRONMENTS: Registry[EnvironmentSpec] = Registry(
    "environment",
    "dagster_slurm_components.environments",
    (CurrentEnvironment, PathEnvironment, ModulesEnvironment),
    default="current",
)
"""Model by environment type."""

Environment = Annotated[EnvironmentSpec, Choice(ENVIRONMENTS)]
"""A field that holds any environment."""
