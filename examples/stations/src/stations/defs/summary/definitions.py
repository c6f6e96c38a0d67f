"""What is made of all days together. Both have no partitions: a run over a range makes them once, after its days."""

import dagster as dg

from dagster_slurm_components import ComputeResource


class Hot(dg.Config):
    celsius: float = 25.0


@dg.asset(
    key=["stations", "hot_hours"],
    deps=[dg.AssetKey(["stations", "clean"])],
    group_name="stations",
    backfill_policy=dg.BackfillPolicy.single_run(),  # `dg launch` of a range asks all assets for it
    op_tags={"slurm/step": "thread"},
)
def hot_hours(context: dg.AssetExecutionContext, config: Hot, compute: ComputeResource):
    yield from compute.run(
        context=context,
        payload_path="../../../../workloads/hot_hours.sh",
        args=[str(config.celsius)],
        resources={"mem": "100M"},
    ).get_results()


@dg.asset(
    key=["stations", "warmest_day"],
    deps=[dg.AssetKey(["stations", "fit"])],
    group_name="stations",
    backfill_policy=dg.BackfillPolicy.single_run(),
    op_tags={"slurm/step": "thread"},
)
def warmest_day(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """No job: what it needs stands in Dagster, as the metadata of the fits."""
    found = context.instance.fetch_materializations(dg.AssetKey(["stations", "fit"]), limit=1000).records
    means = {
        record.partition_key: record.asset_materialization.metadata["mean"].value
        for record in reversed(found)  # the newest of each day counts
    }
    warmest = max(means, key=lambda day: means[day])
    return dg.MaterializeResult(metadata={"day": warmest, "mean": means[warmest], "days": len(means)})
