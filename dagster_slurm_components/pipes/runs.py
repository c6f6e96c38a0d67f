"""Runs whose process died, or that failed: ended by proof, and retried by Dagster's daemon or not.

What the daemon does is decided by ``should_retry`` and ``retry_run`` in ``dagster._daemon.auto_run_reexecution``
(1.13). Asking it there would write into the run's log, so the same facts are read here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from dagster_slurm_components.pipes.records import PROFILE, worker

UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
MOST_RUNS = 500

# Dagster's own tags: public in its UI and its API, if not as names in Python (1.13).
_WILL_RETRY, _RETRIED_BY = "dagster/will_retry", "dagster/auto_retry_run_id"
_PARENT, _BACKFILL = "dagster/parent_run_id", "dagster/backfill"
_OVER = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED"})


@dataclass(frozen=True)
class Finding:
    """What was found about a run, and done; what was told once is not told again, by its key."""

    key: str
    run_id: str
    text: str


def end_dead_runs(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Fail (or finish cancelling) the runs whose worker died, so that a retry can take up their jobs.

    Costs one query of Dagster's runs, and asks no host.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY), limit=MOST_RUNS):
        finding = end_if_dead(instance, run)
        if finding is not None:
            yield finding


def end_if_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Finding | None:
    """End a run whose worker is proven dead; one of which that is not known is left alone.

    It is given up only if its worker ran on this machine, in this PID namespace, and is gone, and the run is still not
    finished when it is read again after that.
    """
    owner = worker(run)
    if owner is None or not owner.known_dead():
        return None
    now = instance.get_run_by_id(run.run_id)  # read after the look at the process
    if now is None or now.status not in UNDER_WAY or worker(now) != owner:
        return None
    text = f"The run worker (process {owner.pid} on {owner.node}) is gone."
    if now.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(now, f"{text} The run was being cancelled.")
        return Finding(f"dead {run.run_id}", run.run_id, f"{text} The run is marked as cancelled.")
    instance.report_run_failed(now, f"{text} Its jobs live on: a retry takes them up.")
    text = f"{text} The run is marked as failed, so that a retry takes up its jobs."
    return Finding(f"dead {run.run_id}", run.run_id, text)


def remind_of_retries(
    instance: dg.DagsterInstance,
    *,
    updated_after: datetime,
    updated_before: datetime,
    reminded: frozenset[str],
) -> Iterator[Finding]:
    """Tell Dagster's daemon once more of failed runs that it was to retry and did not.

    A run's failure is written to the event log first and to the run a moment later. A daemon that looks in between
    takes the run for one that still runs, and its cursor passes the event for ever (dagster 1.13.27). A second
    event of the same failure makes it look again. Each event is news for every sensor of failures, so it is made once,
    and only where Dagster can retry at all. Runs that changed after ``updated_before`` are left alone: the daemon needs
    its time.
    """
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        tags={_WILL_RETRY: "true"},
        updated_after=updated_after,
        updated_before=updated_before,
    )
    for run in instance.get_runs(wanted, limit=MOST_RUNS):
        key = f"retry {run.run_id}"
        if key in reminded or PROFILE not in run.tags or not will_be_retried(instance, run):
            continue
        instance.report_run_failed(
            run, "Run retries were to retry this run, and have not. They are told again."
        )
        text = "Dagster's daemon missed this failure; it is told again to retry the run."
        yield Finding(key, run.run_id, text)


def can_be_retried(run: dg.DagsterRun) -> bool:
    """Whether the record of a failed run allows that Dagster's daemon retries it, and no retry is there yet.

    A run without a remote origin, as `dg launch` makes them, is promised a retry and never gets one: "Run does not have
    an external job origin, unable to retry the run" (dagster 1.13).
    """
    return (
        run.status is dg.DagsterRunStatus.FAILURE
        and run.tags.get(_WILL_RETRY) == "true"
        and _RETRIED_BY not in run.tags
        and run.remote_job_origin is not None
    )


def will_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether Dagster's daemon can and will retry a failed run.

    It does not for a backfill that is over or gone, though the run's tag goes on to promise it (dagster 1.13). A run
    that a person re-executed has handed its jobs on, so that a retry would only find them taken.
    """
    return can_be_retried(run) and not _backfill_is_over(instance, run) and not children(instance, run)


def call_off_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Have Dagster's daemon not retry a run that a person has re-executed.

    It would, whenever it starts next, and do again what was collected meanwhile: a person's re-execution is none of its
    retries (1.13). It sets this tag so itself where it can't retry.
    """
    if can_be_retried(run):
        instance.add_run_tags(run.run_id, {_WILL_RETRY: "false"})


def children(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Sequence[dg.DagsterRun]:
    """Return the runs that retry or re-execute a run, the newest first."""
    return instance.get_runs(dg.RunsFilter(tags={_PARENT: run.run_id}))


def _backfill_is_over(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    backfill_id = run.tags.get(_BACKFILL)
    if backfill_id is None:
        return False
    backfill = instance.get_backfill(backfill_id)
    return backfill is None or backfill.status.value in _OVER
