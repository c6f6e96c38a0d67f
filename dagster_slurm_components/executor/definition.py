"""``slurm_executor``, as Dagster's definitions take it."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_slurm_components.pipes.private import private_parts

with private_parts(
    "configures executors in another way", "leave `executor=slurm_executor` out of your definitions"
):
    from dagster._core.execution.retries import RetryMode, get_retries_config
    from dagster._core.execution.tags import get_tag_concurrency_limits_config

MAX_JOBS = 1000

_CONFIG = {
    "max_jobs": dg.Field(
        dg.Int,
        default_value=MAX_JOBS,
        description="The most scripts of a run that wait for their jobs at once. Each costs a thread, no process.",
    ),
    "max_concurrent": dg.Field(
        dg.Noneable(dg.Int),
        default_value=None,
        description="The most other steps of a run at once, each a process; by default as many as there are cores.",
    ),
    "retries": get_retries_config(),
    "tag_concurrency_limits": get_tag_concurrency_limits_config(),
}


@dg.executor(
    name="slurm",
    config_schema=_CONFIG,
    requirements=dg.multiple_process_executor_requirements(),
)
def slurm_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Executes a run's scripts in the run's own process, which costs each a thread; other steps as processes.

    A script mostly waits for its job. Under Dagster's multiprocess executor each waits in a process of its own, which
    takes some 100 MB and two seconds of CPU to start. Here a run of a thousand scripts is one process with one
    connection to the cluster. Python assets that mostly wait for ``compute.run`` join by the tag
    ``op_tags={"slurm/step": "thread"}``: their code then shares the process with all others, and their resources are
    made once for the run.

    Example:
        .. code-block:: python

            defs = dg.Definitions(assets=..., executor=slurm_executor.configured({"max_jobs": 200}))

        In the launchpad: ``execution: {config: {max_jobs: 200}}``.
    """
    # Not above: with it come Dagster's storages and SQLAlchemy, 0.5 s and 40 MB for whoever loads definitions alone.
    from dagster_slurm_components.executor.executor import SlurmExecutor  # noqa: PLC0415

    config: Mapping[str, Any] = context.executor_config
    for name in ("max_jobs", "max_concurrent"):
        if config[name] is not None and config[name] < 1:
            # Of Dagster's errors, which alone it tells of where an executor can't be made.
            raise dg.DagsterInvariantViolationError(
                f"`{name}` of the executor `slurm` is {config[name]}. Let at least one step run at a time."
            )
    return SlurmExecutor(
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        max_jobs=config["max_jobs"],
        max_concurrent=config["max_concurrent"] or os.cpu_count() or 1,
        tag_concurrency_limits=config.get("tag_concurrency_limits") or (),
    )
