"""What a script makes: assets and checks, in Dagster's own words."""

from __future__ import annotations

import keyword
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from typing_extensions import Self

from dagster_slurm_components.spec.base import (
    Count,
    Flag,
    Format,
    Model,
    Number,
    Scalar,
    Text,
    Word,
    mistake,
    or_template,
    shape,
)
from dagster_slurm_components.spec.partitions import BackfillPolicy, OfTemplate, PartitionsDefinition
from dagster_slurm_components.spec.problems import describe

# Names that Dagster keeps for itself (dagster 1.13, `check_valid_name`), beside Python's own.
_TAKEN = frozenset(
    {"arg_dict", "bool", "conf", "config", "context", "dict", "float", "input", "input_arg_dict", "int"}
    | {"meta", "output", "output_arg_dict", "str", "type"}
    | set(keyword.kwlist)
)
_KEY_PART = r"[A-Za-z0-9_.\-]+"
_KEY = rf"{_KEY_PART}(?:/{_KEY_PART})*"
_TAG_KEY = r"(?:[A-Za-z0-9_.\-]{1,63}/|dagster/kind/)?[A-Za-z0-9_.\-]{1,63}"
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.\-]{0,63}")
_OWNER = r"team:.+|[A-Za-z0-9._%+\-]+@[A-Za-z0-9.\-]+\.[A-Za-z|]{2,7}"


def _key(value: Any) -> Any:
    """Read an asset key: ``a/b``, or ``[a, b]``."""
    if not isinstance(value, (list, tuple)):
        return value
    if not value or not all(isinstance(part, str) and part and "/" not in part for part in value):
        raise mistake(
            "expected an asset key: text, or a list of texts", "write `a/b` or `[a, b]`", "asset_key"
        )
    return "/".join(value)


def _not_taken(key: str) -> str:
    if key in _TAKEN:
        raise mistake(f"`{key}` is a word of Python or Dagster", "choose a longer key, such as `data/type`")
    return key


def _tag(value: Any) -> Any:
    if isinstance(value, str) and not _TAG_VALUE.fullmatch(value):
        hint = "use at most 63 letters, digits, `_`, `.` and `-`"
        raise mistake(f"{describe(value)} can't be the value of a tag", hint, "tag")
    return value


AssetKey = Annotated[
    Word,
    BeforeValidator(_key),
    AfterValidator(_not_taken),
    Format(
        _KEY,
        "an asset key: letters, digits, `_`, `.` and `-`, with slashes between parts",
        "models/digits",
        keeps_templates=True,
    ),
    shape(
        "string",
        "integer",
        "array",
        pattern=_KEY,
        items={"type": "string", "pattern": or_template(_KEY_PART)},
        minItems=1,
    ),
]
"""An asset key as Dagster users write it: ``models/digits``. Dagster refuses other characters in keys of ops."""
Group = Annotated[
    Word, Format(r"[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)*", "a group: letters, digits and `_`", "training")
]
Owner = Annotated[Word, Format(_OWNER, "a mail address or a team", "team:ml")]
TagKey = Annotated[
    Word, Format(_TAG_KEY, "the name of a tag: letters, digits, `_`, `.` and `-`", "domain/tier")
]
TagValue = Annotated[
    Scalar,
    AfterValidator(_tag),
    shape("string", "number", "boolean", pattern=_TAG_VALUE.pattern),
]
CheckName = Annotated[
    Word,
    Format(
        r"[A-Za-z0-9_.]+", "the name of a check: letters, digits and `_`", "is_sorted", keeps_templates=True
    ),
]
Pool = Annotated[Word, Format(r"\S+", "the name of a pool", "gpu_jobs")]


class AssetAttributes(Model):
    """What Dagster knows of an asset beside its key; the words are those of ``dagster.AssetSpec``."""

    deps: list[AssetKey] = Field(
        default=[], description="Keys of the assets it is made from.", examples=[["datasets/digits"]]
    )
    description: Text | None = Field(
        default=None, description="What the asset is; Markdown.", examples=["Digits model"]
    )
    group_name: Group | None = Field(default=None, description="Dagster group.", examples=["training"])
    owners: list[Owner] = Field(
        default=[],
        description="Owners: mail addresses, or teams as `team:NAME`.",
        examples=[["team:ml", "ada@example.org"]],
    )
    tags: dict[TagKey, TagValue] = Field(default={}, description="Dagster tags.", examples=[{"tier": "gold"}])
    kinds: Annotated[list[Word], Field(max_length=10)] = Field(
        default=[], description="Kinds shown in Dagster's UI.", examples=[["pytorch"]]
    )
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
        examples=["{{ dg.AutomationCondition.eager() }}"],
    )
    partitions_def: PartitionsDefinition = Field(
        default=None,
        description="Partitions, as in `{type: static, partition_keys: [a, b]}`.",
        examples=[{"type": "static", "partition_keys": ["a", "b"]}],
    )
    freshness_policy: OfTemplate = Field(
        default=None, description="Freshness policy.", examples=["{{ freshness_policy() }}"]
    )


class AssetDeclaration(AssetAttributes):
    """One asset that a script makes."""

    key: AssetKey = Field(description="Asset key, slashes between its parts.", examples=["models/digits"])


class CheckDeclaration(Model):
    """One asset check whose result the payload reports; the words are those of ``dagster.AssetCheckSpec``."""

    name: CheckName = Field(description="Name of the check.", examples=["accuracy_above_90"])
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
        examples=["{{ dg.AutomationCondition.eager() }}"],
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

    @model_validator(mode="after")
    def _delay_is_there(self) -> Self:
        if self.delay is None and (self.backoff or self.jitter):
            raise mistake("`backoff` and `jitter` need a `delay`", "write `delay: 30` (seconds)")
        return self


class OpSettings(Model):
    """Settings of the Dagster op behind the script."""

    name: Word | None = Field(
        default=None, description="Name of the op; else it comes from the script's name.", examples=["train"]
    )
    description: Text | None = Field(
        default=None, description="What the op does.", examples=["Trains the model"]
    )
    tags: dict[str, Any] = Field(default={}, description="Op tags.", examples=[{"dagster/priority": "3"}])
    pool: Pool | None = Field(default=None, description="Dagster concurrency pool.", examples=["gpu_jobs"])
    retry_policy: RetryPolicy | None = Field(
        default=None, description="Dagster's retry of the step.", examples=[{"max_retries": 2, "delay": 30}]
    )
    backfill_policy: BackfillPolicy | None = Field(
        default=None, description="How a backfill becomes runs.", examples=[{"type": "single_run"}]
    )
