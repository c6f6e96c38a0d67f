"""The Python face: the same job, with everything that YAML can say, from an ordinary Dagster asset."""

import dagster as dg

from dagster_slurm_components import BashLauncher, ComputeResource


@dg.asset(
    key=["digits", "baseline"],
    deps=[dg.AssetKey(["digits", "split"])],
    group_name="digits",
    description="A linear model after three epochs: what the network must beat.",
    kinds={"python"},
    op_tags={"slurm/step": "thread"},  # it only waits for its job, so it needs no process of its own
)
def baseline(context: dg.AssetExecutionContext, compute: ComputeResource):
    completed = compute.run(
        context=context,
        payload_path="train.py",
        launcher=BashLauncher(),
        extra_env={"EPOCHS": "3"},
    )
    yield from completed.get_results()
