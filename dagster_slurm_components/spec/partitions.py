"""Partitions and backfills of assets, in the words of Dagster's own component YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from dagster_slurm_components.spec.base import TEMPLATE, Count, Model, Positive, Word, mistake
from dagster_slurm_components.spec.problems import describe
from dagster_slurm_components.spec.registry import Choice, Described, Registry
from dagster_slurm_components.spec.templates import is_template


class _TimePartitions(Model):
    """What all partitions by time have."""

    type: str = Field(description="Kind of partitions.", examples=["daily"])
    start_date: Word = Field(description="Start of the first partition.", examples=["2025-01-01"])
    end_date: Word | None = Field(
        default=None, description="End of the last partition.", examples=["2025-12-31"]
    )
    timezone: Word | None = Field(default=None, description="Time zone.", examples=["Europe/Vienna"])


class HourlyPartitions(_TimePartitions):
    """A partition an hour."""

    type: Literal["hourly"] = Field(description="Kind of partitions.", examples=["hourly"])
    minute_offset: Count = Field(default=0, description="Minutes past the hour.", examples=[15])


class DailyPartitions(HourlyPartitions):
    """A partition a day."""

    type: Literal["daily"] = Field(description="Kind of partitions.", examples=["daily"])  # type: ignore[assignment]
    hour_offset: Count = Field(default=0, description="Hours past midnight.", examples=[6])


class WeeklyPartitions(DailyPartitions):
    """A partition a week."""

    type: Literal["weekly"] = Field(description="Kind of partitions.", examples=["weekly"])  # type: ignore[assignment]
    day_offset: Count = Field(default=0, description="Days past Sunday.", examples=[1])


class TimeWindowPartitions(_TimePartitions):
    """A partition for each tick of a cron schedule."""

    type: Literal["time_window"] = Field(description="Kind of partitions.", examples=["time_window"])
    fmt: Word = Field(description="Format of the keys, for strftime.", examples=["%Y-%m-%d"])
    cron_schedule: Word = Field(description="When partitions begin.", examples=["0 0 1 * *"])


class StaticPartitions(Model):
    """A fixed list of partitions."""

    type: Literal["static"] = Field(description="Kind of partitions.", examples=["static"])
    partition_keys: Annotated[list[Word], Field(min_length=1)] = Field(
        description="The partitions' keys.", examples=[["a", "b"]]
    )


PARTITIONS: Registry[Model] = Registry(
    "partitions definition",
    None,
    (HourlyPartitions, DailyPartitions, WeeklyPartitions, TimeWindowPartitions, StaticPartitions),
)
"""Model by kind of partitions."""


class SingleRunBackfill(Model):
    """All partitions of a backfill in one run."""

    type: Literal["single_run"] = Field(description="One run or several.", examples=["single_run"])


class MultiRunBackfill(Model):
    """Several runs for the partitions of a backfill."""

    type: Literal["multi_run"] = Field(description="One run or several.", examples=["multi_run"])
    max_partitions_per_run: Positive = Field(
        default=1, description="Most partitions of one run.", examples=[10]
    )


BACKFILLS: Registry[Model] = Registry("backfill policy", None, (SingleRunBackfill, MultiRunBackfill))
"""Model by kind of backfill."""

BackfillPolicy = Annotated[Model, Choice(BACKFILLS)]


def _partitions(value: Any) -> Any:
    """Check a mapping and keep it raw: Dagster's own resolver makes the definition of it."""
    if isinstance(value, Mapping):
        PARTITIONS.validate(value)
        return value
    return _of_template(value)


def _of_template(value: Any) -> Any:
    """Take a template, or the object that one was rendered to."""
    if value is None or is_template(value):
        return value
    if isinstance(value, (str, int, float, list, Mapping)):
        raise mistake(
            f"expected a template, got {describe(value)}",
            "write one like {{ automation_condition.eager() }}, or name one of `template_vars_module`",
            "template_type",
        )
    return value


PartitionsDefinition = Annotated[Any, AfterValidator(_partitions), Described(PARTITIONS)]
"""Partitions as a raw mapping, a template, or the object that a template was rendered to."""
OfTemplate = Annotated[
    Any, AfterValidator(_of_template), WithJsonSchema({"type": ["string", "null"], "pattern": TEMPLATE})
]
"""A template, or the object that it was rendered to."""
