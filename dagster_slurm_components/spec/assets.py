"""What a script makes: assets and checks, in Dagster's own words."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from typing_extensions import Self

from dagster_slurm_components.spec.base import (
    Count,
    Flag,
    Format,
    Number,
    Scalar,
    Text,
    Word,
    shape,
)
from dagster_slurm_components.spec.keys import AssetKey
from dagster_slurm_components.spec.model import Model, mistake, option, required
from dagster_slurm_components.spec.partition_mappings import Dep
from dagster_slurm_components.spec.partitions import BackfillPolicy, OfTemplate, PartitionsDefinition
from dagster_slurm_components.spec.problems import describe

_TAG_KEY = r"(?:[A-Za-z0-9_.\-]{1,63}/|dagster/kind/)?[A-Za-z0-9_.\-]{1,63}"
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.\-]{0,63}")
_OWNER = r"team:.+|[A-Za-z0-9._%+\-]+@[A-Za-z0-9.\-]+\.[A-Za-z|]{2,7}"


def _tag(value: Any) -> Any:
    if isinstance(value, str) and not _TAG_VALUE.fullmatch(value):
        hint = "use at most 63 letters, digits, `_`, `.` and `-`"
        raise mistake(f"{describe(value)} can't be the value of a tag", hint, "tag")
    return value


Group = Annotated[
    Word, Format(r"[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)*", "a group: letters, digits and `_`", "training")
]
Owner = Annotated[Word, Format(_OWNER, "a mail address or a team", "team:ml")]
TagKey = Annotated[
    Word, Format(_TAG_KEY, "the name of a tag: letters, digits, `_`, `.` and `-`", "domain/tier")
]
TagValue = Annotated[
    Scalar, AfterValidator(_tag), shape("string", "number", "boolean", pattern=_TAG_VALUE.pattern)
]
CheckName = Annotated[
    Word,
    Format(
        r"[A-Za-z0-9_.]+", "the name of a check: letters, digits and `_`", "is_sorted", keeps_templates=True
    ),
]
Hooks = Annotated[
    list[OfTemplate],
    BeforeValidator(lambda given: [*given] if isinstance(given, list | set | frozenset) else [given]),
]
"""Hooks, a template each; or a template that gives one or several."""
Pool = Annotated[Word, Format(r"\S+", "the name of a pool", "gpu_jobs")]


class AssetAttributes(Model):
    """What Dagster knows of an asset beside its key; the words are those of ``dagster.AssetSpec``."""

    deps: list[Dep] = option(
        "The assets it is made from: keys, or `{asset: KEY, partition_mapping: {...}}`.",
        ["datasets/digits"],
        default=[],
    )
    description: Text | None = option("What the asset is; Markdown.", "Digits model")
    group_name: Group | None = option("Dagster group.", "training")
    owners: list[Owner] = option(
        "Owners: mail addresses, or teams as `team:NAME`.", ["team:ml", "ada@example.org"], default=[]
    )
    tags: dict[TagKey, TagValue] = option("Dagster tags.", {"tier": "gold"}, default={})
    kinds: Annotated[list[Word], Field(max_length=10)] = option(
        "Kinds shown in Dagster's UI.", ["pytorch"], default=[]
    )
    metadata: dict[str, Any] = option("Metadata of the definition.", {"dataset": "digits"}, default={})
    code_version: Word | None = option(
        "Version of the code; else a hash of the payload and all that shapes its result.", "3"
    )
    skippable: Flag | None = option("The payload may leave this asset out; downstream is skipped then.", True)
    automation_condition: OfTemplate = option(
        "When Dagster makes it by itself.", "{{ dg.AutomationCondition.eager() }}"
    )
    partitions_def: PartitionsDefinition = option(
        "Partitions, as in `{type: static, partition_keys: [a, b]}`.",
        {"type": "static", "partition_keys": ["a", "b"]},
    )
    freshness_policy: OfTemplate = option("Freshness policy.", "{{ freshness_policy() }}")


class AssetDeclaration(AssetAttributes):
    """One asset that a script makes."""

    refused: ClassVar[Mapping[str, str]] = {
        "ins": "a script takes no values, so write `deps`; it reads files"
    }

    key: AssetKey = required("Asset key, slashes between its parts.", "models/digits")
    io_manager_key: Word | None = option("IO manager by which Python assets load it.", "warehouse")


class CheckDeclaration(Model):
    """One asset check whose result the payload reports; the words are those of ``dagster.AssetCheckSpec``."""

    name: CheckName = required("Name of the check.", "accuracy_above_90")
    asset: AssetKey = required("Key of the checked asset, one of this script.", "models/digits")
    description: Text | None = option("What is checked.", "Accuracy is high")
    blocking: Flag = option("A failure keeps downstream from running.", True, default=False)
    additional_deps: list[AssetKey] = option(
        "Other assets that the check reads.", ["datasets/digits"], default=[]
    )
    metadata: dict[str, Any] = option("Metadata of the definition.", {"threshold": 0.9}, default={})
    automation_condition: OfTemplate = option(
        "When Dagster runs it by itself.", "{{ dg.AutomationCondition.eager() }}"
    )
    partitions_def: PartitionsDefinition = option(
        "The asset's partitions: then each has a result of its own. Left out, the newest result is that of all.",
        {"type": "static", "partition_keys": ["a", "b"]},
    )


class RetryPolicy(Model):
    """Dagster's own retry of a step; the words are those of ``dagster.RetryPolicy``."""

    max_retries: Count = option("Most retries.", 2, default=1)
    delay: Number | None = option("Seconds before a retry.", 30)
    backoff: Literal["LINEAR", "EXPONENTIAL"] | None = option("How the delay grows.", "EXPONENTIAL")
    jitter: Literal["FULL", "PLUS_MINUS"] | None = option("How the delay is scattered.", "PLUS_MINUS")

    @model_validator(mode="after")
    def _delay_is_there(self) -> Self:
        if self.delay is None and (self.backoff or self.jitter):
            raise mistake("`backoff` and `jitter` need a `delay`", "write `delay: 30` (seconds)")
        return self


class OpSettings(Model):
    """Settings of the Dagster op behind the script."""

    name: Word | None = option("Name of the op; else it comes from the script's name.", "train")
    description: Text | None = option("What the op does.", "Trains the model")
    tags: dict[str, Any] = option("Op tags.", {"dagster/priority": "3"}, default={})
    pool: Pool | None = option("Dagster concurrency pool.", "gpu_jobs")
    retry_policy: RetryPolicy | None = option("Dagster's retry of the step.", {"max_retries": 2, "delay": 30})
    backfill_policy: BackfillPolicy | None = option("How a backfill becomes runs.", {"type": "single_run"})
    hooks: Hooks = option("Hooks of the step's success or failure.", ["{{ tell_the_team }}"], default=[])
    required_resource_keys: list[Word] = option("Resources that it needs.", ["warehouse"], default=[])
