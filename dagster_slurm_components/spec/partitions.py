"""Partitions and backfills of assets, in the words of Dagster's own component YAML."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from typing_extensions import Self

from dagster_slurm_components.spec.base import TEMPLATE, WHOLE, Format, Positive, Word
from dagster_slurm_components.spec.cron import cron_fields, share_a_key
from dagster_slurm_components.spec.model import Model, mistake, option, required
from dagster_slurm_components.spec.problems import describe
from dagster_slurm_components.spec.registry import Registry
from dagster_slurm_components.spec.templates import is_template

_YEARS = 1000, 9900
"""Dagster (1.13) fails at years before them, and where it can't count on."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise mistake(f"there is no time zone {name!r}", "write one like Europe/Vienna", "timezone") from None
    return name


def _date(date_format: str, text: str) -> str:
    """Check a date as Dagster will read it."""
    try:
        date = datetime.strptime(text, date_format)
    except ValueError:
        example = datetime(2025, 1, 31).strftime(date_format)
        raise mistake(f"{text!r} is not a date", f"write one like {example}", "date") from None
    if not _YEARS[0] <= date.year <= _YEARS[1]:
        raise mistake(f"{text!r} is too far away", "write a year between {} and {}".format(*_YEARS), "date")
    return text


def _cron(text: str) -> str:
    try:
        cron_fields(text)
    except ValueError as exc:
        raise mistake(f"{exc}", 'write five fields, such as "0 6 * * 1"', "cron") from None
    return text


def _partition_key(key: str) -> str:
    if "..." in key:  # dagster 1.13: INVALID_STATIC_PARTITIONS_KEY_CHARACTERS
        raise mistake("a partition's key can't hold `...`")
    return key


def _different(keys: list[str]) -> list[str]:
    for key in keys:
        if keys.count(key) > 1:
            raise mistake(f"the partition `{key}` is written twice", "keep one of the two")
    return keys


TimeZone = Annotated[Word, AfterValidator(_zone)]
Day = Annotated[Word, AfterValidator(partial(_date, "%Y-%m-%d"))]
Hour = Annotated[Word, AfterValidator(partial(_date, "%Y-%m-%d-%H:%M"))]
_CRON = r"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)|\S+(?:\s+\S+){4}"
Cron = Annotated[
    Word,
    Format(_CRON, "a cron schedule", hint='write five fields, such as "0 6 * * 1"'),
    AfterValidator(_cron),
]
PartitionKeys = Annotated[
    list[Annotated[Word, AfterValidator(_partition_key)]], Field(min_length=1), AfterValidator(_different)
]
MinuteOffset = Annotated[int, Field(ge=0, le=59), WHOLE]
HourOffset = Annotated[int, Field(ge=0, le=23), WHOLE]
DayOffset = Annotated[int, Field(ge=0, le=6), WHOLE]


class TimePartitions(Model):
    """What all partitions by time have."""

    start_date: Day = required("Start of the first partition.", "2025-01-01")
    end_date: Day | None = option("End of the last one.", "2025-12-31")
    timezone: TimeZone | None = option("Time zone.", "Europe/Vienna")


class HourlyPartitions(TimePartitions):
    """A partition an hour."""

    type: Literal["hourly"] = required("Kind of partitions.", "hourly")
    start_date: Hour = required("Start of the first partition.", "2025-01-01-00:00")
    end_date: Hour | None = option("End of the last one.", "2025-12-31-00:00")
    minute_offset: MinuteOffset = option("Minutes past the hour.", 15, default=0)


class DailyPartitions(TimePartitions):
    """A partition a day."""

    type: Literal["daily"] = required("Kind of partitions.", "daily")
    minute_offset: MinuteOffset = option("Minutes past the hour.", 15, default=0)
    hour_offset: HourOffset = option("Hours past midnight.", 6, default=0)


class WeeklyPartitions(TimePartitions):
    """A partition a week."""

    type: Literal["weekly"] = required("Kind of partitions.", "weekly")
    minute_offset: MinuteOffset = option("Minutes past the hour.", 15, default=0)
    hour_offset: HourOffset = option("Hours past midnight.", 6, default=0)
    day_offset: DayOffset = option("Days past Sunday.", 1, default=0)


class TimeWindowPartitions(TimePartitions):
    """A partition for each tick of a cron schedule."""

    type: Literal["time_window"] = required("Kind of partitions.", "time_window")
    start_date: Word = required("Start of the first partition.", "2025-01-01")
    end_date: Word | None = option("End of the last one.", "2025-12-31")
    fmt: Word = required("Format of the keys, for strftime.", "%Y-%m-%d")
    cron_schedule: Cron = required("When partitions begin.", "0 0 1 * *")

    @model_validator(mode="after")
    def _dates_have_the_format(self) -> Self:
        for date in (self.start_date, self.end_date):
            if date is not None:
                _date(self.fmt, date)
        if share_a_key(cron_fields(self.cron_schedule), self.fmt):
            message = f"`fmt` gives partitions of {self.cron_schedule!r} the same key"
            raise mistake(message, "write one that tells them apart, such as %Y-%m-%d-%H:%M", "fmt")
        return self


class StaticPartitions(Model):
    """A fixed list of partitions."""

    type: Literal["static"] = required("Kind of partitions.", "static")
    partition_keys: PartitionKeys = required("The partitions' keys.", ["a", "b"])


def of_template(value: Any) -> Any:
    """Take a template, or the object that one was rendered to."""
    if isinstance(value, (str, int, float, list, Mapping)) and not is_template(value):
        hint = "write one like {{ dg.AutomationCondition.eager() }}, or name one of `template_vars_module`"
        raise mistake(f"expected a template, got {describe(value)}", hint, "template_type")
    return value


PARTITIONS: Registry[Model] = Registry(
    "partitions definition",
    None,
    (HourlyPartitions, DailyPartitions, WeeklyPartitions, TimeWindowPartitions, StaticPartitions),
    other=of_template,
)
"""Model by kind of partitions."""


class SingleRunBackfill(Model):
    """All partitions of a backfill in one run."""

    type: Literal["single_run"] = required("One run or several.", "single_run")


class MultiRunBackfill(Model):
    """Several runs for the partitions of a backfill."""

    type: Literal["multi_run"] = required("One run or several.", "multi_run")
    max_partitions_per_run: Positive = option("Most partitions of one run.", 10, default=1)


BACKFILLS: Registry[Model] = Registry("backfill policy", None, (SingleRunBackfill, MultiRunBackfill))
"""Model by kind of backfill."""

BackfillPolicy = Annotated[Model, BACKFILLS]
PartitionsDefinition = Annotated[Any, PARTITIONS]
"""Partitions, a template, or the object that a template was rendered to."""
OfTemplate = Annotated[
    Any, AfterValidator(of_template), WithJsonSchema({"type": ["string", "null"], "pattern": TEMPLATE})
]
"""A template, or the object that it was rendered to."""
