"""The sensor that finds runs whose process died and jobs that nobody follows."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg

from dagster_slurm_components.pipes.heal import cancel_jobs_of_cancelled_runs, heal_dead_runs
from dagster_slurm_components.pipes.target import Target, target
from dagster_slurm_components.spec.profiles import load_profile

_LOOK_BACK = timedelta(days=2)


def slurm_jobs_sensor(
    *,
    project: str | Path,
    name: str = "slurm_jobs",
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Return a sensor that looks after runs and jobs whose Dagster process died.

    A run whose worker is proven dead is marked as failed: run retries then take up its jobs. Jobs of runs that were
    marked as cancelled while nobody followed them are cancelled. Healthy runs are never touched. Processes of other
    machines are not judged; there Dagster's own run monitoring is needed.

    Args:
        project: A folder of the project, from which ``profiles/`` is looked for.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two passes.
        default_status: Whether it runs without being switched on.

    Example:
        .. code-block:: python

            defs = dg.Definitions(sensors=[slurm_jobs_sensor(project=Path(__file__).parent)])
    """

    def place_of(profile: str) -> Target:
        return target(load_profile(profile, start=Path(project)))

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Finds runs whose process died and jobs that nobody follows.",
    )
    def watch_jobs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        since = datetime.now(timezone.utc) - _LOOK_BACK
        found = [
            *heal_dead_runs(context.instance),
            *cancel_jobs_of_cancelled_runs(context.instance, place_of, updated_after=since),
        ]
        for healed in found:
            context.log.warning(f"Run {healed.run_id}: {healed.what}")
        told = "\n".join(f"{healed.run_id}: {healed.what}" for healed in found)
        return dg.SkipReason(told or "All runs that follow a job are alive, for all that is known here.")

    return watch_jobs
