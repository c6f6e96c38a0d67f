"""The partition that a step is for, or the range of them: what payloads in any language are told of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from dagster_slurm_components.jobs.bundle import PARTITION_KEYS
from dagster_slurm_components.pipes.context import StepContext, range_keys, time_window
from dagster_slurm_components.spec.templates import Values

_NO_NAME = re.compile(r"[^A-Z0-9]+")
_PREFIX = "DAGSTER_SLURM_PARTITION"


@dataclass(frozen=True)
class Partition:
    """What a payload is told.

    Attributes:
        variables: Environment variables; none where the step has no partitions.
        keys: All keys of a range; none for a single partition.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


def partition_of(context: StepContext, run_dir: str) -> Partition:
    """Return what the payload in a run directory is told of its partitions; keys are handed on as they are."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return Partition()
    keys = tuple(range_keys(context))
    if context.has_partition_key:
        variables = _single(context.partition_key)
    else:
        ends = context.partition_key_range
        variables = {f"{_PREFIX}_RANGE_START": ends.start, f"{_PREFIX}_RANGE_END": ends.end}
        variables[f"{_PREFIX}_KEYS_FILE"] = f"{run_dir}/{PARTITION_KEYS}"
    window = time_window(context)
    if window is not None:
        variables[f"{_PREFIX}_START"] = window.start.isoformat()
        variables[f"{_PREFIX}_END"] = window.end.isoformat()
    return Partition(variables, keys)


class Moment(datetime):
    """A moment that templates show as ISO 8601; ``.strftime`` and all else of ``datetime`` work, too."""

    def __str__(self) -> str:
        """Show it as in ``2026-02-03T00:00:00+00:00``."""
        return self.isoformat()


def template_names(context: StepContext) -> tuple[dict[str, Any], str]:
    """Return what templates know of a step's partition, and what to say of a name that is not there."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return {}, "this run has no partition"
    keys = range_keys(context)
    missing = "this run is for a range: `partition_keys` is the list of its keys"
    names: dict[str, Any] = {"partition_keys": keys}
    if context.has_partition_key:
        key = context.partition_key
        names = {"partition_key": str(key), "partition_keys": [str(key)]}
        missing = (
            "this run is for one partition; only several dimensions, and windows of time, have more names"
        )
        if isinstance(key, dg.MultiPartitionKey):
            names["partition"] = Values("partition", key.keys_by_dimension)
    window = time_window(context)
    if window is not None:
        ends = {"start": Moment.fromisoformat(window.start.isoformat())}
        ends["end"] = Moment.fromisoformat(window.end.isoformat())
        names["partition_window"] = Values("partition_window", ends)
    return names, missing


def _single(key: str) -> dict[str, str]:
    """Return the variables of one key, and of each of its dimensions.

    Of two dimensions whose names differ in no letter or digit the first has the variable.
    """
    variables = {f"{_PREFIX}_KEY": str(key)}
    if isinstance(key, dg.MultiPartitionKey):
        for dimension, value in key.keys_by_dimension.items():
            name = _NO_NAME.sub("_", dimension.upper()).strip("_")
            variables.setdefault(f"{_PREFIX}_KEY_{name}", value)
    return variables
