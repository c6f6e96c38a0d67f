"""What upstream jobs and Python assets have made, by Dagster's own record: where it lies, and of which hash it is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import dagster as dg

from dagster_slurm_components.errors import InputFailedError
from dagster_slurm_components.pipes.bring import Output, outputs_of
from dagster_slurm_components.pipes.context import Partition, StepContext, is_direct
from dagster_slurm_components.pipes.newest import newest_of
from dagster_slurm_components.pipes.private import private_parts
from dagster_slurm_components.pipes.step import RUNS

with private_parts("maps partitions in another way", "take assets out of `inputs`"):
    from dagster._core.definitions.partitions.context import partition_loading_context
    from dagster._core.definitions.partitions.utils import infer_partition_mapping

_STORED = "path"
"""The metadata by which IO managers that store files, as Dagster's own do, tell where."""


@dataclass(frozen=True)
class Made:
    """Something that an asset's newest materialization has told of.

    Attributes:
        path: Where it is: on the host of the job that made it; on this machine, or as a URL, where no job did.
        hash: Of what is in it; where that is not known, the materialization that told of it.
        output: What is known of it as an output of a job, if it is one.
    """

    asset: str
    path: str
    hash: str
    output: Output | None = None


@dataclass(frozen=True)
class Upstream:
    """Looks up what the assets that a step reads have made; each of them once."""

    context: StepContext
    _known: dict[tuple[dg.AssetKey, str | None], dg.AssetMaterialization | None] = field(default_factory=dict)

    def keys(self, asset: dg.AssetKey, partition: Partition) -> Sequence[str] | None:
        """Return the partitions of an asset that one of the step's, or its range, is made from; None if it has none."""
        if is_direct(self.context):
            return None
        layer = self.context.get_step_execution_context().job_def.asset_layer
        before = layer.get(asset).partitions_def if layer.has(asset) else None
        if before is None:
            return None
        mapping, after, own = None, None, list(partition.keys or filter(None, [partition.key]))
        if self.context.has_assets_def:
            definition = self.context.assets_def
            mapping, after = definition.get_partition_mapping_for_dep(asset), definition.partitions_def
        with partition_loading_context(dynamic_partitions_store=self.context.instance):
            subset = after.empty_subset().with_partition_keys(own) if after else None
            found = infer_partition_mapping(
                mapping, after, before
            ).get_upstream_mapped_partitions_result_for_partitions(subset, after, before)
            return list(found.partitions_subset.get_partition_keys())

    def made(self, asset: dg.AssetKey, partition: str | None, output: str | None) -> Made:
        """Return one output of an asset, or of a partition of it; without a name the only one.

        Raises:
            InputFailedError: It was never made, or told of no such thing.
        """
        if (asset, partition) not in self._known:
            self.read(asset, [partition])
        found, name = self._known[asset, partition], asset.to_user_string()
        what = f"`{name}`" + (f" in partition `{partition}`" if partition is not None else "")
        if found is None:
            raise InputFailedError(
                f"{what} was never materialized", hint="Materialize it first.", code="missing"
            )
        outputs = outputs_of(found.metadata)
        stored = found.metadata.get(_STORED)
        if output is None and not outputs and stored is not None:
            return Made(name, str(stored.value), _identity(found))
        chosen = [each for each in outputs.values() if output in (None, each.name)]
        if len(chosen) != 1:
            told = f"told of {', '.join(f'`{each}`' for each in outputs) or 'no outputs'}"
            hint = (
                "Name one of them: `{source: ..., output: NAME}`." if outputs else "Declare `outputs` there."
            )
            wanted = f"the output `{output}`" if output else "one output"
            text = f"{wanted} of {what} is asked for, whose newest materialization {told}"
            raise InputFailedError(text, hint=hint, code="missing")
        (one,) = chosen
        if one.path is None:
            text = f"the output `{one.name}` of {what} has a path that Dagster can't keep"
            raise InputFailedError(text, hint="Give it a name without line breaks, in UTF-8.", code="failed")
        return Made(name, one.path, one.hash or _identity(found), one)

    def read(self, asset: dg.AssetKey, partitions: Iterable[str | None]) -> None:
        """Read the newest materializations of an asset, as far as they are not known."""
        wanted = [each for each in dict.fromkeys(partitions) if (asset, each) not in self._known]
        with RUNS:
            found = newest_of(self.context.instance, asset, wanted)
            self._known.update({(asset, partition): made for partition, made in found})


def _identity(made: dg.AssetMaterialization) -> str:
    """Return what tells this materialization from an earlier one where nobody hashed the files."""
    return (made.tags or {}).get("dagster/data_version", "")
