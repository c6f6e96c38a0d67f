"""Whether Dagster's daemon retries a failed run, as far as Dagster's own records tell.

The daemon's verdict is ``should_retry`` and ``retry_run`` in ``dagster._daemon.auto_run_reexecution`` (1.13). Asking it
there would write into the run's log, so the same facts are read here.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

# Dagster's own tags: public in its UI and its API, if not as names in Python (1.13).
_WILL_RETRY, _RETRIED_BY = "dagster/will_retry", "dagster/auto_retry_run_id"
_PARENT, _BACKFILL = "dagster/parent_run_id", "dagster/backfill"
_OVER = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED"})


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
