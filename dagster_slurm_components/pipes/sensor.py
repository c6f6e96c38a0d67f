"""Sensors: one finds runs whose process died and jobs that nobody follows, one tells which hosts are waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.attempts import Failing, failing
from dagster_slurm_components.pipes.heal import (
    Healed,
    PlaceOf,
    cancel_jobs_of_cancelled_runs,
    failed_runs,
    heal_dead_runs,
    remind_of_retries,
    tell_of_left_jobs,
)
from dagster_slurm_components.pipes.target import Target, target
from dagster_slurm_components.spec.profiles import load_profile

_LOOK_BACK = timedelta(days=2)
_DAEMON = timedelta(minutes=1)
"""Within this time Dagster's daemon, which looks each five seconds, retries a failed run."""


def slurm_jobs_sensor(
    *,
    project: str | Path,
    notify: Callable[[str], None] | None = None,
    name: str = "slurm_jobs",
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Return a sensor that looks after runs and jobs whose Dagster process died.

    A run whose worker is proven dead is marked as failed: run retries then take up its jobs. Jobs of runs that were
    marked as cancelled while nobody followed them are cancelled. A failure that Dagster's daemon missed, so that a
    promised retry does not come, is reported to it again. Of a job that a failed run left behind, and that no retry is
    promised for, it tells once. Healthy runs are never touched. Processes of other machines are not judged; there
    Dagster's own run monitoring is needed.

    Args:
        project: A folder of the project, from which ``profiles/`` is looked for.
        notify: Called with a sentence for each thing that was found; an e-mail, say.
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
        now = datetime.now(timezone.utc)
        since = now - _LOOK_BACK
        found = [
            *heal_dead_runs(context.instance),
            *remind_of_retries(context.instance, updated_after=since, updated_before=now - _DAEMON),
            *cancel_jobs_of_cancelled_runs(context.instance, place_of, updated_after=since),
            *_left_jobs(context, place_of, since, now - _DAEMON),
        ]
        for healed in found:
            text = f"Run {healed.run_id}: {healed.what}"
            context.log.warning(text)
            if notify is not None and not healed.again:
                notify(text)
        told = "\n".join(f"{healed.run_id}: {healed.what}" for healed in found)
        return dg.SkipReason(told or "All runs that follow a job are alive, for all that is known here.")

    return watch_jobs


def _left_jobs(
    context: dg.SensorEvaluationContext, place_of: PlaceOf, since: datetime, until: datetime
) -> list[Healed]:
    """Tell of the jobs that failed runs left behind. The cursor keeps the runs that were looked at, once each."""
    runs = failed_runs(context.instance, updated_after=since, updated_before=until)
    seen = set(json.loads(context.cursor or "[]"))
    looked_at: list[str] = []
    found: list[Healed] = []
    for run in runs:
        if run.run_id not in seen:
            try:
                found += tell_of_left_jobs(context.instance, place_of, run)
            except DagsterSlurmError as error:
                context.log.info(f"Run {run.run_id}: whether its jobs go on is not known yet. {error}")
                continue
        looked_at.append(run.run_id)
    context.update_cursor(json.dumps(looked_at))
    return found


def parked_hosts_sensor(
    *,
    notify: Callable[[str], None] | None = None,
    name: str = "parked_hosts",
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Return a sensor that tells for which hosts steps wait, since when, and what heals it.

    It asks no host and makes no login: it reads what the processes of this user on this machine have written down of
    their own attempts. Of other machines it knows nothing.

    Args:
        notify: Called with a sentence for each host, once when it begins to be waited for; an e-mail, say.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two looks.
        default_status: Whether it runs without being switched on.

    Example:
        .. code-block:: python

            defs = dg.Definitions(sensors=[parked_hosts_sensor(notify=send_to_the_team)])
    """

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Tells for which hosts steps wait.",
    )
    def watch_hosts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        told = set(json.loads(context.cursor or "[]"))
        found = {f"{one.host} {one.since:.0f}": _told(one) for one in failing(place.folder())}
        for key, text in found.items():
            context.log.warning(text)
            if notify is not None and key not in told:
                notify(text)
        context.update_cursor(json.dumps(sorted(found)))
        return dg.SkipReason("\n".join(found.values()) or "No step of this machine waits for a host.")

    return watch_hosts


def _told(one: Failing) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(one.since))
    return f"Steps wait for {one.host} since {since}: {one.error.message}. {one.error.hint or ''}".rstrip()
