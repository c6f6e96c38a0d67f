"""From which partitions of another asset those of a script's asset are made.

The types are Dagster's classes without ``PartitionMapping``, the fields are theirs (dagster 1.13).
"""

from typing import Annotated, Any, Literal

from dagster_slurm_components.spec.base import WHOLE, Alone, Flag, Word
from dagster_slurm_components.spec.keys import AssetKey
from dagster_slurm_components.spec.model import Model, option, required
from dagster_slurm_components.spec.partitions import (
    PartitionKeys,
    StaticPartitions,
    TimePartitions,
    of_template,
)
from dagster_slurm_components.spec.registry import Registry

Offset = Annotated[int, WHOLE]


class AllPartitions(Model):
    """Each partition is made from all of the other asset."""

    type: Literal["all"] = required("Kind of mapping.", "all")


class IdentityPartitions(Model):
    """Each partition is made from that of the same key."""

    type: Literal["identity"] = required("Kind of mapping.", "identity")


class LastPartition(Model):
    """Each partition is made from the newest of the other asset."""

    type: Literal["last"] = required("Kind of mapping.", "last")


class SpecificPartitions(Model):
    """Each partition is made from the same few."""

    type: Literal["specific_partitions"] = required("Kind of mapping.", "specific_partitions")
    partition_keys: PartitionKeys = required("Keys of the other asset.", ["a"])


class StaticMapping(Model):
    """What follows from each key of the other asset is written down."""

    type: Literal["static"] = required("Kind of mapping.", "static")
    downstream_partition_keys_by_upstream_partition_key: dict[Word, PartitionKeys] = required(
        "Keys of this asset by key of the other.", {"north": ["oslo", "malmo"]}
    )


class TimeWindowMapping(Model):
    """Each partition is made from those in the same time, or so many earlier or later."""

    type: Literal["time_window"] = required("Kind of mapping.", "time_window")
    start_offset: Offset = option("Partitions by which the first is shifted.", -1, default=0)
    end_offset: Offset = option("Partitions by which the last is shifted.", -1, default=0)
    allow_nonexistent_upstream_partitions: Flag = option(
        "Those before the start of the other asset may be missing.", True, default=False
    )


class DimensionMapping(Model):
    """Partitions of one dimension are made from those of an asset that has this dimension, or this one alone."""

    type: Literal["multi_to_single_dimension"] = required("Kind of mapping.", "multi_to_single_dimension")
    partition_dimension_name: Word | None = option("The dimension, if several would fit.", "region")


PARTITION_MAPPINGS: Registry[Model] = Registry(
    "partition mapping",
    None,
    (
        AllPartitions,
        DimensionMapping,
        IdentityPartitions,
        LastPartition,
        SpecificPartitions,
        StaticMapping,
        TimeWindowMapping,
    ),
    other=of_template,
)
"""Model by kind of mapping; what has no word here (``MultiPartitionMapping``) a template gives."""


class AssetDep(Model):
    """An asset that another one is made from; the words are those of ``dagster.AssetDep``."""

    asset: AssetKey = required("Its key.", "raw")
    partition_mapping: Annotated[Any, PARTITION_MAPPINGS] = option(
        "Which of its partitions; else those of the same key, or of the same time.",
        {"type": "time_window", "start_offset": -1, "end_offset": -1},
    )


def fits(mapping: Model | None, before: Model, after: Model | None) -> bool:
    """Return whether Dagster (1.13) takes a mapping, or none, between partitions that are written down."""
    of_any = isinstance(mapping, AllPartitions | LastPartition | SpecificPartitions)
    if of_any or after is None:
        return of_any or mapping is None
    if isinstance(before, StaticPartitions) and isinstance(after, StaticPartitions):
        if isinstance(mapping, StaticMapping):
            table = mapping.downstream_partition_keys_by_upstream_partition_key
            made = {key for keys in table.values() for key in keys}
            return table.keys() <= {*before.partition_keys} and made <= {*after.partition_keys}
        return mapping is None or isinstance(mapping, IdentityPartitions)
    if isinstance(before, TimePartitions) and isinstance(after, TimePartitions):
        if isinstance(mapping, IdentityPartitions):
            return type(before) is type(after)
        same_zone = (before.timezone or "UTC") == (after.timezone or "UTC")
        return same_zone and (mapping is None or isinstance(mapping, TimeWindowMapping))
    return False


Dep = Annotated[AssetDep, Alone("asset")]
"""A dependency: ``raw``, ``[lake, raw]``, or ``{asset: raw, partition_mapping: {type: last}}``."""
