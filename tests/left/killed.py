"""A process that evaluates the sensor, and that is killed at a chosen moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_slurm_components import slurm_jobs_sensor
from dagster_slurm_components.jobs.lease import LeaseStore

MOMENTS: tuple[tuple[type, str], ...] = (
    (LeaseStore, "take"),
    (LeaseStore, "change"),
    (dg.DagsterInstance, "report_runless_asset_event"),
    (dg.DagsterInstance, "add_run"),
    (dg.DagsterInstance, "report_dagster_event"),
)
"""All that the sensor changes; it is killed before one of them, or after."""


def tick(project: str, instance: dg.DagsterInstance, kill_at: int | None = None) -> None:
    """Evaluate the sensor once; at that moment the kernel ends this process."""
    seen = 0

    def moment() -> None:
        nonlocal seen
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            moment()
            done = real(*args, **options)
            moment()
            return done

        return call

    for owner, name in MOMENTS:
        setattr(owner, name, watched(getattr(owner, name)))
    sensor = slurm_jobs_sensor(project=Path(project))
    with dg.build_sensor_context(instance=instance) as context:
        sensor(context)


def main(project: str, ref: dg.DagsterInstance, kill_at: int | None) -> None:
    """Do so in a process of its own, where an instance is opened by its reference."""
    with dg.DagsterInstance.from_ref(ref) as instance:  # type: ignore[arg-type]
        tick(project, instance, kill_at)
