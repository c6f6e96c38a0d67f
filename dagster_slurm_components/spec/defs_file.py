"""Dagster's own ``defs.yaml``, around the attributes of a component."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dagster_slurm_components.spec.assets import AssetAttributes
from dagster_slurm_components.spec.base import Text, Word
from dagster_slurm_components.spec.component import COMPONENT_TYPE
from dagster_slurm_components.spec.model import Model, option

FILE_NAMES = ("defs.yaml", "component.yaml")
"""The files in which Dagster looks for components (dagster 1.13)."""


class Requirements(Model):
    """What a component needs to load."""

    env: list[Word] | None = option("Environment variables that must be set.", ["HPC_USER"])


class AssetPostProcessor(Model):
    """One change to assets, made by Dagster; keys can't be changed."""

    target: Text = option("Asset selection.", "group:training", default="*")
    operation: Literal["merge", "replace"] = option(
        "How these attributes meet those there are.", "merge", default="merge"
    )
    attributes: AssetAttributes = Field(description="The attributes.", examples=[{"group_name": "training"}])


class PostProcessing(Model):
    """Changes to a component's definitions, made by Dagster."""

    assets: list[AssetPostProcessor] | None = option(
        "Changes to assets, in this order.", [{"target": "*", "attributes": {"group_name": "training"}}]
    )


class DefsFile(Model):
    """One document of a ``defs.yaml`` that holds this component."""

    type: Literal["dagster_slurm_components.SlurmScriptComponent"] = Field(
        description="Type of the component.", examples=[COMPONENT_TYPE]
    )
    attributes: dict[Any, Any] | None = option(
        "Scripts and their defaults.", {"scripts": [{"payload": "train.py", "assets": [{"key": "model"}]}]}
    )
    template_vars_module: Word | None = option("Module with template variables.", ".template_vars")
    requirements: Requirements | None = option("What the component needs to load.", {"env": ["HPC_USER"]})
    post_processing: PostProcessing | None = option(
        "Changes to the component's definitions.", {"assets": [{"attributes": {"group_name": "training"}}]}
    )
