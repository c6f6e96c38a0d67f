"""What a script makes: assets and checks, in Dagster's own words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dagster_slurm_components.spec.base import (
    LINE,
    Count,
    Flag,
    Model,
    Number,
    Scalar,
    Text,
    Word,
    mistake,
    shape,
)
from dagster_slurm_components.spec.partitions import BackfillPolicy, OfTemplate, PartitionsDefinition


def _key(value: Any) -> Any:
    """Read an asset key: ``a/b``, or ``[a, b]`` whose parts may hold slashes."""
    if not isinstance(value, (list, tuple)):
        return value
    if not value or not all(isinstance(part, str) and part for part in value):
        raise mistake(
            "expected an asset key: text, or a list of texts", "write `a/b` or `[a, b]`", "asset_key"
        )
    return "/".join(part.replace("/", "\\/") for part in value)


AssetKey = Annotated[
    Word,
    BeforeValidator(_key),
    shape("string", "integer", "array", pattern=LINE, items={"type": "string", "minLength": 1}, minItems=1),
]
"""An asset key as Dagster users write it: ``models/digits``."""


class AssetDeclaration(Model):
    """One asset that a script makes; the words are those of ``dagster.AssetSpec``."""

    key: AssetKey = Field(description="Asset key, slashes between its parts.", examples=["models/digits"])
    deps: list[AssetKey] = Field(
        default=[], description="Keys of the assets it is made from.", examples=[["datasets/digits"]]
    )
    description: Text | None = Field(
        default=None, description="What the asset is; Markdown.", examples=["Digits model"]
    )
    group_name: Word | None = Field(default=None, description="Dagster group.", examples=["training"])
    owners: list[Word] = Field(
        default=[],
        description="Owners: mail addresses, or teams as `team:NAME`.",
        examples=[["team:ml", "ada@example.org"]],
    )
    tags: dict[str, Scalar] = Field(default={}, description="Dagster tags.", examples=[{"tier": "gold"}])
    kinds: list[Word] = Field(default=[], description="Kinds shown in Dagster's UI.", examples=[["pytorch"]])
    metadata: dict[str, Any] = Field(
        default={}, description="Metadata of the definition.", examples=[{"dataset": "digits"}]
    )
    code_version: Word | None = Field(
        default=None,
        description="Version of the code; else a hash of the payload and all that shapes its result.",
        examples=["3"],
    )
    skippable: Flag | None = Field(
        default=None,
        description="The payload may leave this asset out; downstream is skipped then.",
        examples=[True],
    )
    automation_condition: OfTemplate = Field(
        default=None,
        description="When Dagster makes it by itself.",
        examples=["{{ automation_condition.eager() }}"],
    )
    partitions_def: PartitionsDefinition = Field(
        default=None,
        description="Partitions, as in `{type: static, partition_keys: [a, b]}`.",
        examples=[{"type": "static", "partition_keys": ["a", "b"]}],
    )
    freshness_policy: OfTemplate = Field(
        default=None, description="Freshness policy.", examples=["{{ freshness_policy() }}"]
    )


class CheckDeclaration(Model):
    """One asset check whose result the payload reports; the words are those of ``dagster.AssetCheckSpec``."""

    name: Word = Field(description="Name of the check.", examples=["accuracy_above_90"])
    asset: AssetKey = Field(
        description="Key of the checked asset, one of this script.", examples=["models/digits"]
    )
    description: Text | None = Field(
        default=None, description="What is checked.", examples=["Accuracy is high"]
    )
    blocking: Flag = Field(
        default=False, description="A failure keeps downstream from running.", examples=[True]
    )
    additional_deps: list[AssetKey] = Field(
        default=[], description="Other assets that the check reads.", examples=[["datasets/digits"]]
    )
    metadata: dict[str, Any] = Field(
        default={}, description="Metadata of the definition.", examples=[{"threshold": 0.9}]
    )
    automation_condition: OfTemplate = Field(
        default=None,
        description="When Dagster runs it by itself.",
        examples=["{{ automation_condition.eager() }}"],
    )


class RetryPolicy(Model):
    """Dagster's own retry of a step; the words are those of ``dagster.RetryPolicy``."""

    max_retries: Count = Field(default=1, description="Most retries.", examples=[2])
    delay: Number | None = Field(default=None, description="Seconds before a retry.", examples=[30])
    backoff: Literal["LINEAR", "EXPONENTIAL"] | None = Field(
        default=None, description="How the delay grows.", examples=["EXPONENTIAL"]
    )
    jitter: Literal["FULL", "PLUS_MINUS"] | None = Field(
        default=None, description="How the delay is scattered.", examples=["PLUS_MINUS"]
    )


class OpSettings(Model):
    """Settings of the Dagster op behind the script."""

    name: Word | None = Field(
        default=None, description="Name of the op; else it comes from the script's name.", examples=["train"]
    )
    description: Text | None = Field(
        default=None, description="What the op does.", examples=["Trains the model"]
    )
    tags: dict[str, Any] = Field(default={}, description="Op tags.", examples=[{"dagster/priority": "3"}])
    pool: Word | None = Field(default=None, description="Dagster concurrency pool.", examples=["gpu_jobs"])
    retry_policy: RetryPolicy | None = Field(
        default=None, description="Dagster's retry of the step.", examples=[{"max_retries": 2, "delay": 30}]
    )
    backfill_policy: BackfillPolicy | None = Field(
        default=None, description="How a backfill becomes runs.", examples=[{"type": "single_run"}]
    )
