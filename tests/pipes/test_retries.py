"""Whether Dagster's daemon retries a failed run: what is said here is what the daemon itself does."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import should_retry

from dagster_slurm_components.pipes.runs import call_off_retry, can_be_retried, will_be_retried

STATUS = dg.DagsterRunStatus
PROMISED = {"dagster/will_retry": "true"}
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), "job"
)


def make(
    instance: dg.DagsterInstance,
    tags: Mapping[str, str] = PROMISED,
    *,
    origin: RemoteJobOrigin | None = ORIGIN,
    status: dg.DagsterRunStatus = STATUS.FAILURE,
) -> dg.DagsterRun:
    return create_run_for_test(
        instance, job_name="job", status=status, tags=dict(tags), remote_job_origin=origin
    )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (PROMISED, True),
        ({"dagster/will_retry": "false"}, False),
        ({}, False),
        ({**PROMISED, "dagster/auto_retry_run_id": "its-retry"}, False),
    ],
)
def test_the_promise_stands_in_the_tags(
    instance: dg.DagsterInstance, tags: Mapping[str, str], expected: bool
) -> None:
    run = make(instance, tags)
    assert can_be_retried(run) is expected
    assert will_be_retried(instance, run) is expected


def test_f3_a_run_of_dg_launch_is_promised_a_retry_that_never_comes(instance: dg.DagsterInstance) -> None:
    run = make(instance, origin=None)
    assert should_retry(run, instance), "Dagster says so, and then can't"
    assert not can_be_retried(run)
    assert not will_be_retried(instance, run)


@pytest.mark.parametrize("status", [status for status in STATUS if status is not STATUS.FAILURE])
def test_only_a_failure_is_retried(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    assert not can_be_retried(make(instance, status=status))


@pytest.mark.parametrize("status", [None, *BulkActionStatus])
def test_d10_a_backfill_that_is_over_retries_nothing(
    instance: dg.DagsterInstance, status: BulkActionStatus | None
) -> None:
    """For each status that a backfill may have, and for one that was deleted, the daemon's own verdict."""
    run = make(instance, {**PROMISED, "dagster/backfill": "fill"})
    if status is not None:
        backfill = PartitionBackfill(
            backfill_id="fill",
            status=status,
            from_failure=False,
            tags={},
            backfill_timestamp=1.0,
            partition_names=["a"],
            reexecution_steps=None,
            title=None,
            description=None,
        )
        instance.add_backfill(backfill)
    assert will_be_retried(instance, run) is should_retry(run, instance)


def test_a_run_that_a_person_re_executed_has_handed_its_jobs_on(instance: dg.DagsterInstance) -> None:
    run = make(instance)
    assert will_be_retried(instance, run)
    make(instance, {"dagster/parent_run_id": run.run_id}, status=STATUS.STARTED)
    assert can_be_retried(run)
    assert not will_be_retried(instance, run)


def test_a_retry_that_was_called_off_is_not_made(instance: dg.DagsterInstance) -> None:
    run, ours = make(instance), make(instance, origin=None)
    for each in (run, ours):
        call_off_retry(instance, each)
    now = instance.get_run_by_id(run.run_id)
    assert now is not None
    assert not should_retry(now, instance)
    assert not can_be_retried(now)
    untouched = instance.get_run_by_id(ours.run_id)
    assert untouched is not None
    assert untouched.tags == ours.tags
