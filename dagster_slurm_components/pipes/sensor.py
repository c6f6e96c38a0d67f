"""Sensors: one finds runs whose process died and jobs that nobody follows, one tells which hosts are waited for."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.attempts import Failing, failing
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.pipes.left.jobs import LeftJobs
from dagster_slurm_components.pipes.orphans import Orphans
from dagster_slurm_components.pipes.records import PROFILE, ways_to_tag
from dagster_slurm_components.pipes.runs import UNDER_WAY, Finding, end_dead_runs, remind_of_retries
from dagster_slurm_components.pipes.tags import LEFT
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import load_profile, profile_names

_LOOK_BACK = timedelta(days=2)
_LOOK_BACK_FOR_LEFT_JOBS = timedelta(days=60)
"""A left job may wait for so long; its run was over when it began to."""
_DAEMON = timedelta(minutes=1)
"""Within this time Dagster's daemon, which looks each five seconds, retries a failed run."""
_MOST_REPORTED = 5_000
Known = dict[str, dict[str, Observation]]
"""What was known of the left jobs of each profile at the last pass of this process, by run directory."""


def slurm_jobs_sensor(
    *,
    project: str | Path,
    notify: Callable[[str], None] | None = None,
    name: str = "slurm_jobs",
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Return a sensor that reports what came of jobs that were left, and looks after jobs whose Dagster process died.

    Of a job that a script left (``leave: true``) it reports materializations, checks and figures once it has ended, or
    a failed run; each once, whatever is killed meanwhile.

    A run whose worker is proven dead is marked as failed: run retries then take up its jobs. Jobs of runs that were
    cancelled while nobody followed them are cancelled. A failure that Dagster's daemon missed, so that a promised retry
    does not come, is reported to it again, once. Of a job that a failed run left behind, and that no retry is promised
    for, it tells once. Runs that live, and their jobs, are never touched. Processes of other machines and containers
    are not judged; there Dagster's own run monitoring is needed.

    A pass costs a few queries of Dagster's runs, however many there are, and one call to the host of each profile that
    had jobs in the last two days or still has runs under way.

    Args:
        project: A folder of the project, from which ``profiles/`` is looked for.
        notify: Called with a sentence for each thing that was found, once; an e-mail, say.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between two passes.
        default_status: Whether it runs without being switched on.

    Example:
        .. code-block:: python

            defs = dg.Definitions(sensors=[slurm_jobs_sensor(project=Path(__file__).parent)])
    """
    known: Known = {}

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Reports what came of jobs that were left; finds runs whose process died and jobs that nobody"
        " follows.",
    )
    def watch_jobs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        reported = _reported(context)
        findings = list(_pass(context, Path(project), frozenset(reported), known))
        told = [each for each in findings if each.text]
        texts = {each.key: f"Run {each.run_id}: {each.text}" if each.run_id else each.text for each in told}
        _tell(context, texts, reported, notify)
        keys = dict.fromkeys((*reported, *(each.key for each in findings)))
        context.update_cursor(json.dumps(list(keys)[-_MOST_REPORTED:]))
        lines = "\n".join(f"{each.run_id}: {each.text}" for each in told)
        return dg.SkipReason(lines or "All runs that follow a job are alive, for all that is known here.")

    return watch_jobs


def _pass(
    context: dg.SensorEvaluationContext, project: Path, reported: frozenset[str], known: Known
) -> Iterator[Finding]:
    instance, now = context.instance, datetime.now(timezone.utc)
    since = now - _LOOK_BACK
    yield from end_dead_runs(instance)
    yield from remind_of_retries(
        instance, updated_after=since, updated_before=now - _DAEMON, reminded=reported
    )
    for profile in _profiles(instance, project, now):
        try:
            loaded = load_profile(profile, start=project)
            host, co2 = target(loaded), loaded.profile.cost.co2_g_per_kwh
            attempts, clock = host.leases.open()
            left = [each for each in attempts if each.lease.left]
            others = [each for each in attempts if not each.lease.left]
            yield from Orphans(instance, host, profile).look_after(others, clock, reported)
            jobs = LeftJobs(instance, host, profile, known.setdefault(profile, {}), context.log, co2)
            yield from jobs.look_after(left, clock, reported)
        except (DagsterSlurmError, SpecError) as error:
            # Nothing is lost: what there is to do stands in the leases there.
            context.log.info(f"The jobs of the profile {profile} can't be looked at: {error}")


def _profiles(instance: dg.DagsterInstance, project: Path, now: datetime) -> list[str]:
    """Return the profiles that may have jobs: of runs that changed lately, that are under way, or that left jobs.

    A host of which no run knows is never connected to: it might ask for a password.
    """
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        (PROFILE, {"updated_after": now - _LOOK_BACK}),
        (PROFILE, {"statuses": [dg.DagsterRunStatus.STARTING, *UNDER_WAY]}),
        (LEFT, {"updated_after": now - _LOOK_BACK_FOR_LEFT_JOBS}),
    )

    def has_jobs(name: str) -> bool:
        filters = (dg.RunsFilter(tags=tags, **when) for tag, when in kinds for tags in ways_to_tag(tag, name))
        return any(instance.get_run_records(wanted, limit=1) for wanted in filters)

    return [name for name in profile_names(project) if has_jobs(name)]


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
        texts = {f"{one.host} {one.since:.0f}": _waiting(one) for one in failing(place.folder())}
        _tell(context, texts, _reported(context), notify)
        context.update_cursor(json.dumps(sorted(texts)))
        return dg.SkipReason("\n".join(texts.values()) or "No step of this machine waits for a host.")

    return watch_hosts


def _reported(context: dg.SensorEvaluationContext) -> list[str]:
    return list(json.loads(context.cursor or "[]"))


def _tell(
    context: dg.SensorEvaluationContext,
    texts: Mapping[str, str],
    reported: list[str],
    notify: Callable[[str], None] | None,
) -> None:
    """Log what was found, and tell whoever wants to know what is new of it.

    It stays reported where that fails, as in a run's log, where it stands then.
    """
    for key, text in texts.items():
        context.log.warning(text)
        if notify is None or key in reported:
            continue
        try:
            notify(text)
        except Exception:  # the user's code: a mail server that is down
            # A tick that fails keeps no cursor (dagster 1.13): the next one would find, and tell, all of it again.
            context.log.exception("The function that the sensor was given as `notify` failed")


def _waiting(one: Failing) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(one.since))
    return f"Steps wait for {one.host} since {since}: {one.error.message}. {one.error.hint or ''}".rstrip()
