"""What Dagster's own code for outputs does, for one partition at a time.

An output of a step for a range of partitions is one materialization of each, all at once and when the step ends
(dagster 1.13). The elements of a job array end one by one, some of them badly: each is to be a materialization when it
ends, with the tags that Dagster gives to its own (code and data versions, provenance), and the output itself then says
no more. Both have no public name. ``tests/pipes/test_array.py`` names the versions for which this was seen to hold.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from dagster_slurm_components.pipes.private import private_parts

with private_parts("stores outputs in another way", "take `array` out"):
    from dagster._core.definitions.assets.definition.asset_spec import AssetExecutionType
    from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
    from dagster._core.execution.plan.execute_step import _get_output_asset_events


def materializations(
    context: dg.AssetExecutionContext, key: dg.AssetKey, result: dg.MaterializeResult[Any], partition: str
) -> Iterator[dg.AssetMaterialization]:
    """Yield what Dagster makes of a result for one partition of an asset."""
    name, step = output_of(context, key), context.get_step_execution_context()
    output = dg.Output(
        None, output_name=name, metadata=result.metadata, data_version=result.data_version, tags=result.tags
    )
    definition, made = step.op_def.output_def_named(name), AssetExecutionType.MATERIALIZATION
    for event in _get_output_asset_events(key, [partition], output, definition, {}, step, made):
        if isinstance(event, dg.AssetMaterialization):
            yield event


def output_of(context: dg.AssetExecutionContext, key: dg.AssetKey) -> str:
    """Return the name of the output that an asset is made by."""
    return str(context.assets_def.get_output_name_for_asset_key(key))


def silent_output(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dg.Output[None]:
    """Return the output of an asset whose materializations have been stored already."""
    metadata = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
    return dg.Output(None, output_name=output_of(context, key), metadata=metadata)
