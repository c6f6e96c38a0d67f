"""What the payload is told of its step is what Dagster itself would tell, and a little more."""

from typing import Any

import dagster as dg
import pytest
from dagster._core.pipes.context import build_external_execution_context_data

from dagster_slurm_components.pipes.context import context_data, selection

DAILY = dg.DailyPartitionsDefinition("2026-01-01")


MULTI = dg.MultiPartitionsDefinition({"day": DAILY, "kind": dg.StaticPartitionsDefinition(["x", "y"])})


@pytest.mark.parametrize(
    ("partitions", "key"),
    [
        (None, None),
        (DAILY, "2026-02-03"),
        (dg.StaticPartitionsDefinition(["p/q", "r"]), "p/q"),
        (MULTI, dg.MultiPartitionKey({"day": "2026-02-03", "kind": "y"})),
    ],
)
def test_the_context_is_the_one_that_dagster_makes(
    instance: dg.DagsterInstance, partitions: Any, key: str | None
) -> None:
    seen: list[tuple[Any, Any]] = []

    @dg.multi_asset(specs=[dg.AssetSpec(["x", "a-b"], partitions_def=partitions, code_version="7")])
    def one(context: dg.AssetExecutionContext) -> None:
        ours = context_data(context, selection(context), {"n": 1})
        seen.append((ours, build_external_execution_context_data(context, {"n": 1})))

    for _ in range(2):  # the second time there is provenance
        dg.materialize([one], instance=instance, partition_key=key)
    for ours, theirs in seen:
        assert ours == theirs


def test_the_context_of_an_op_is_the_one_that_dagster_makes(instance: dg.DagsterInstance) -> None:
    @dg.op
    def one(context: dg.OpExecutionContext) -> None:
        ours = context_data(context, selection(context), None)
        assert ours == build_external_execution_context_data(context, None)

    @dg.job
    def job() -> None:
        one()

    assert job.execute_in_process(instance=instance).success


def test_a_range_of_partitions_is_told(instance: dg.DagsterInstance) -> None:
    seen: list[Any] = []

    @dg.asset(partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run())
    def days(context: dg.AssetExecutionContext) -> None:
        seen.append(context_data(context, selection(context), None))

    tags = {
        "dagster/asset_partition_range_start": "2026-02-03",
        "dagster/asset_partition_range_end": "2026-02-05",
    }
    dg.materialize([days], instance=instance, tags=tags)
    (told,) = seen
    assert told["partition_key"] is None
    assert told["partition_key_range"] == {"start": "2026-02-03", "end": "2026-02-05"}
    assert told["partition_time_window"]["end"].startswith("2026-02-06")
    assert told["extras"]["partition_keys"] == ["2026-02-03", "2026-02-04", "2026-02-05"]
