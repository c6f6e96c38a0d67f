"""The attributes of `SlurmScriptComponent`: scripts, files with more of them, and their defaults."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dagster_slurm_components.spec.assets import AssetKey
from dagster_slurm_components.spec.base import Model, Word

COMPONENT_TYPE = "dagster_slurm_components.SlurmScriptComponent"


class ComponentAttributes(Model):
    """What stands under ``attributes`` in a ``defs.yaml``."""

    defaults: dict[str, Any] = Field(
        default={},
        description="What all scripts have in common.",
        examples=[{"environment": {"type": "current"}}],
    )
    scripts: list[dict[str, Any]] = Field(
        default=[], description="Scripts.", examples=[[{"payload": "train.py", "assets": [{"key": "model"}]}]]
    )
    include: list[Word] = Field(
        default=[],
        description="Glob patterns of files with one script each, in the same words; relative to this file.",
        examples=[["jobs/*.yaml"]],
    )
    external: list[AssetKey] = Field(
        default=[],
        description="Keys of assets that something else makes; `deps` may name them without a warning.",
        examples=[["raw/digits"]],
    )
