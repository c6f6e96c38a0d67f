"""The partition that a step is for, or the range of them: what payloads in any language are told of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import dagster as dg

from dagster_slurm_components.pipes.context import StepContext, range_keys, time_window

_NO_NAME = re.compile(r"[^A-Z0-9]+")
_PREFIX = "DAGSTER_SLURM_PARTITION"
KEYS_FILE = "partition_keys.txt"
"""The file of a run directory that holds all keys of a range, one a line."""


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
        variables[f"{_PREFIX}_KEYS_FILE"] = f"{run_dir}/{KEYS_FILE}"
    window = time_window(context)
    if window is not None:
        variables[f"{_PREFIX}_START"] = window.start.isoformat()
        variables[f"{_PREFIX}_END"] = window.end.isoformat()
    return Partition(variables, keys)


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
