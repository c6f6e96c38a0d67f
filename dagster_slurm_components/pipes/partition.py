"""The partition that a step is for, or the range of them: what payloads in any language are told of it."""

import re
from datetime import datetime
from typing import Any

import dagster as dg

from dagster_slurm_components.jobs.bundle import PARTITION_KEYS
from dagster_slurm_components.pipes.context import Partition
from dagster_slurm_components.spec.templates import Values

_NO_NAME = re.compile(r"[^A-Z0-9]+")
_PREFIX = "DAGSTER_SLURM_PARTITION"


def variables(partition: Partition, run_dir: str) -> dict[str, str]:
    """Return the environment variables of the payload in a run directory; keys are handed on as they are."""
    key, span, window = partition.key, partition.span, partition.window
    told = {} if key is None else _single(key)
    if key is None and span is not None:
        told = {f"{_PREFIX}_RANGE_START": span["start"], f"{_PREFIX}_RANGE_END": span["end"]}
        told[f"{_PREFIX}_KEYS_FILE"] = f"{run_dir}/{PARTITION_KEYS}"
    if window is not None:
        told |= {f"{_PREFIX}_START": window["start"], f"{_PREFIX}_END": window["end"]}
    return told


class Moment(datetime):
    """A moment that templates show as ISO 8601; ``.strftime`` and all else of ``datetime`` work, too."""

    def __str__(self) -> str:
        """Show it as in ``2026-02-03T00:00:00+00:00``."""
        return self.isoformat()


def template_names(partition: Partition) -> tuple[dict[str, Any], str]:
    """Return what templates know of a partition, and what to say of a name that is not there."""
    key, window = partition.key, partition.window
    if partition.span is None:
        return {}, "this run has no partition"
    missing = "this run is for a range: `partition_keys` is the list of its keys"
    names: dict[str, Any] = {"partition_keys": list(partition.keys)}
    if key is not None:
        names = {"partition_key": str(key), "partition_keys": [str(key)]}
        missing = (
            "this run is for one partition; only several dimensions, and windows of time, have more names"
        )
        if isinstance(key, dg.MultiPartitionKey):
            names["partition"] = Values("partition", key.keys_by_dimension)
    if window is not None:
        ends = {end: Moment.fromisoformat(str(text)) for end, text in window.items()}
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
