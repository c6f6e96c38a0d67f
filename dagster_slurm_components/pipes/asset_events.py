"""The materializations of jobs whose results Dagster does not get as the outputs of a step, one for each partition.

An output of a step for a range of partitions is one materialization of each, all at once, and with one data version
(dagster 1.13). The elements of a job array end one by one, some of them badly; a job that was left ends without a step.
Their events are made here, with the tags that Dagster gives to its own: code and data versions, and what an asset was
made from. None of these tags is public. ``tests/pipes/test_array.py`` names the versions for which they are right.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

from dagster_slurm_components.pipes.context import StepContext, is_skippable
from dagster_slurm_components.pipes.private import private_parts
from dagster_slurm_components.pipes.results import in_order

with private_parts("stores outputs in another way", "take `array` and `leave` out"):
    from dagster._core.definitions.asset_checks.asset_check_evaluation import (
        AssetCheckEvaluationTargetMaterializationData as Checked,
    )
    from dagster._core.definitions.data_version import (
        CODE_VERSION_TAG,
        DATA_VERSION_IS_USER_PROVIDED_TAG,
        DATA_VERSION_TAG,
        NULL_EVENT_POINTER,
        compute_logical_data_version,
        get_input_data_version_tag,
        get_input_event_pointer_tag,
    )
    from dagster._core.definitions.partitions.utils.multi import get_tags_from_multi_partition_key
    from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION


_key = dg.AssetKey.from_escaped_user_string

DEFERRALS: WeakKeyDictionary[dg.DagsterInstance, Callable[[], Callable[[], None]]] = WeakKeyDictionary()
"""By an instance that can do so: has its storage keep back the events of a thread until what it returns is called."""


@contextmanager
def stored_together(instance: dg.DagsterInstance) -> Iterator[list[Callable[[], None]]]:
    """Have Dagster store this thread's events at the end of a block, in one transaction where it can.

    After that what is in the list is called, whatever has ended the block.
    """
    defer, afterwards = DEFERRALS.get(instance), list[Callable[[], None]]()
    store = defer() if defer else None
    try:
        yield afterwards
    finally:
        if store is not None:
            store()
        for each in afterwards:
            each()


@dataclass(frozen=True)
class Origin:
    """An asset that a job makes, and what it is made from.

    Attributes:
        skippable: Whether the payload may leave it out.
        code_version: The version of its code, or the run where it has none, as Dagster has it.
        inputs: The data version and newest event of each asset that it depends on, when the job was submitted.
        within: The assets that it depends on and that the same job makes.
    """

    key: str
    skippable: bool
    code_version: str
    inputs: Mapping[str, tuple[str, int | None]]
    within: tuple[str, ...]

    @property
    def asset_key(self) -> dg.AssetKey:
        """Dagster's key of it."""
        return _key(self.key)


def origins(context: StepContext, keys: Iterable[dg.AssetKey]) -> tuple[Origin, ...]:
    """Return the assets that a step makes, an asset after those it depends on."""
    specs, made = context.assets_def.specs_by_key, frozenset(keys)
    step = context.get_step_execution_context()

    def inputs(key: dg.AssetKey) -> Iterator[tuple[str, tuple[str, int | None]]]:
        for parent in step.job_def.asset_layer.get(key).parent_keys - made:
            info = step.maybe_fetch_and_get_input_asset_version_info(parent)
            version = info.data_version.value if info and info.data_version is not None else "INITIAL"
            yield parent.to_escaped_user_string(), (version, info.storage_id if info else None)

    def within(key: dg.AssetKey) -> Iterator[str]:
        return (dep.asset_key.to_escaped_user_string() for dep in specs[key].deps if dep.asset_key in made)

    return tuple(
        Origin(
            key=key.to_escaped_user_string(),
            skippable=is_skippable(context, key),
            code_version=specs[key].code_version or context.run_id,
            inputs=dict(inputs(key)),
            within=tuple(within(key)),
        )
        for key in in_order(context, sorted(made))
    )


def materializations(
    instance: dg.DagsterInstance,
    origins: Iterable[Origin],
    made: Mapping[dg.AssetKey, dg.MaterializeResult[Any]],
    partitions: Iterable[str | None],
) -> Iterator[dg.AssetMaterialization]:
    """Yield what stands for the results of one job in each partition; each is to be stored before the next one."""
    versions: dict[dg.AssetKey, dg.DataVersion] = {}
    for origin in origins:
        result = made.get(origin.asset_key)
        if result is None:
            continue
        before = {
            _key(name): (dg.DataVersion(version), event) for name, (version, event) in origin.inputs.items()
        }
        within = [key for key in map(_key, origin.within) if key in versions]
        inputs = {key: version for key, (version, _) in before.items()}
        inputs |= {key: versions[key] for key in within}
        version = result.data_version or compute_logical_data_version(origin.code_version, inputs)
        versions[origin.asset_key] = version
        tags = {CODE_VERSION_TAG: origin.code_version, DATA_VERSION_TAG: version.value}
        tags |= {get_input_data_version_tag(key): each.value for key, each in inputs.items()}
        tags |= {DATA_VERSION_IS_USER_PROVIDED_TAG: "true"} if result.data_version else {}
        for partition in partitions:
            events = {key: event for key, (_, event) in before.items()}
            found = {key: newest(instance, key, partition) for key in within}
            events |= {key: event.storage_id if event else None for key, event in found.items()}
            own = {
                get_input_event_pointer_tag(key): str(event or NULL_EVENT_POINTER)
                for key, event in events.items()
            }
            if isinstance(partition, dg.MultiPartitionKey):
                own |= get_tags_from_multi_partition_key(partition)
            yield dg.AssetMaterialization(
                origin.asset_key, partition=partition, metadata=result.metadata, tags={**tags, **own}
            )


def newest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> Checked | None:
    """Return the newest materialization of an asset, or of one partition of it, as the result of a check names it."""
    wanted = dg.AssetRecordsFilter(key, asset_partitions=None if partition is None else [partition])
    for record in instance.fetch_materializations(wanted, limit=1).records:
        return Checked(storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp)
    return None


def silent_output(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dg.Output[None]:
    """Return the output of an asset whose materializations have been stored already."""
    name = context.assets_def.get_output_name_for_asset_key(key)
    return dg.Output(None, output_name=name, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})
