"""Which run a person means, whether its jobs may be taken up, and what a retry keeps of it."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_run_for_test

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.pipes.records import WORKER, written
from dagster_slurm_components.pipes.reexecute import find_run, reexecute_here, run_to_take_up, tags_of_retry

STATUS = dg.DagsterRunStatus
FROM_FAILURE = "dagster/is_resume_retry"
ONE, TWO = "aaaa1111-0000-4000-8000-000000000001", "aaaa1111-0000-4000-8000-000000000002"
THIRD = "dddd1111-0000-4000-8000-000000000001"
OTHER = "bbbb1111-0000-4000-8000-000000000001"


def make(
    instance: dg.DagsterInstance,
    run_id: str = ONE,
    status: dg.DagsterRunStatus = STATUS.FAILURE,
    **more: object,
) -> dg.DagsterRun:
    return create_run_for_test(instance, job_name="job", run_id=run_id, status=status, **more)  # type: ignore[arg-type]


def retry(
    instance: dg.DagsterInstance, run: dg.DagsterRun, run_id: str, status: dg.DagsterRunStatus
) -> dg.DagsterRun:
    root = run.root_run_id or run.run_id
    tags = {"dagster/parent_run_id": run.run_id, "dagster/root_run_id": root, FROM_FAILURE: "true"}
    return make(instance, run_id, status, parent_run_id=run.run_id, root_run_id=root, tags=tags)


def told(error: pytest.ExceptionInfo[DagsterSlurmError]) -> str:
    return " ".join(str(error.value).split())


def test_a_run_is_named_by_its_id_or_the_beginning_of_that(instance: dg.DagsterInstance) -> None:
    for run_id in (ONE, TWO, OTHER):
        make(instance, run_id)
    assert find_run(instance, ONE).run_id == ONE
    assert find_run(instance, "bbbb").run_id == OTHER
    with pytest.raises(DagsterSlurmError) as error:
        find_run(instance, "aaaa1111")
    assert told(error) == f"'aaaa1111' names 2 runs: {ONE}, {TWO} Write more of the id."


@pytest.mark.parametrize("name", ["bbb", "cccc", "", "1111"])
def test_what_names_no_run_says_where_it_was_looked_for(instance: dg.DagsterInstance, name: str) -> None:
    make(instance, OTHER)
    with pytest.raises(DagsterSlurmError) as error:
        find_run(instance, name)
    assert f"there is no run {name!r} in {instance.root_directory}" in told(error)
    assert "such a run can't be taken up" in told(error)


@pytest.mark.parametrize("status", [STATUS.FAILURE, STATUS.CANCELED])
def test_a_run_that_stopped_is_taken_up(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    run = make(instance, status=status)
    assert run_to_take_up(instance, run).run_id == run.run_id


def test_a_run_that_succeeded_is_not(instance: dg.DagsterInstance) -> None:
    with pytest.raises(DagsterSlurmError, match="has succeeded: there is nothing to take up"):
        run_to_take_up(instance, make(instance, status=STATUS.SUCCESS))


@pytest.mark.parametrize("status", [STATUS.QUEUED, STATUS.STARTING, STATUS.STARTED, STATUS.CANCELING])
def test_a_run_that_may_live_is_left_alone(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    run = make(instance, status=STATUS.STARTED)._replace(status=status)
    with pytest.raises(DagsterSlurmError, match="and its process is not known to be dead"):
        run_to_take_up(instance, run)


def test_a_run_whose_worker_is_dead_is_ended_first(instance: dg.DagsterInstance) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.of(ONE, process.pid)
    run = make(instance, status=STATUS.STARTED, tags={WORKER: written(owner)})
    with pytest.raises(DagsterSlurmError, match=f"run {ONE} is STARTED"):
        run_to_take_up(instance, run)
    process.communicate(b"\n")
    assert run_to_take_up(instance, run).status is STATUS.FAILURE


def test_a_run_that_another_went_on_for_names_the_last_of_them(instance: dg.DagsterInstance) -> None:
    run = make(instance)
    # Somebody ran one step of it again, or all of it anew: that is another matter.
    make(instance, THIRD, STATUS.SUCCESS, tags={"dagster/parent_run_id": ONE})
    assert run_to_take_up(instance, run)
    second = retry(instance, run, TWO, STATUS.FAILURE)
    with pytest.raises(DagsterSlurmError) as error:
        run_to_take_up(instance, run)
    assert told(error) == (
        f"run {TWO} went on for run {ONE}, and is FAILURE To go on from there: dg-slurm attach {TWO}"
    )
    retry(instance, second, OTHER, STATUS.STARTED)
    for each in (run, second):
        with pytest.raises(DagsterSlurmError) as error:
            run_to_take_up(instance, each)
        assert told(error) == f"run {OTHER} went on for run {each.run_id}, and is STARTED"


def test_a_run_whose_steps_all_succeeded_is_not_run_again(instance: dg.DagsterInstance) -> None:
    """As after a process that died between its last step and its run's end."""

    @dg.op
    def works() -> None: ...

    @dg.job
    def job() -> None:
        works()

    done = job.execute_in_process(instance=instance)
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    instance.report_run_failed(run)
    failed = instance.get_run_by_id(done.run_id)
    assert failed is not None
    with pytest.raises(DagsterSlurmError, match=f"each step of run {failed.run_id} has succeeded"):
        run_to_take_up(instance, failed)


def test_a_run_of_a_python_program_names_no_code(instance: dg.DagsterInstance) -> None:
    with pytest.raises(DagsterSlurmError, match="does not say where its code is"):
        reexecute_here(instance, make(instance), tell=print)


def backfill(status: BulkActionStatus) -> PartitionBackfill:
    return PartitionBackfill(
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


@pytest.mark.parametrize("status", [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELED])
def test_a_retry_keeps_the_tags_that_dagster_keeps(
    instance: dg.DagsterInstance, status: BulkActionStatus
) -> None:
    kept = {"dagster/partition": "a|b", "team": "physics", "dagster/max_retries": "2", "dagster/run_key": "k"}
    dropped = {
        "dagster/will_retry": "true",
        "dagster/failure_reason": "STEP_FAILURE",
        "dagster/retry_number": "1",
        "slurm/job_id": "4711",
        ".dagster/repository": "__repository__@here",
    }
    family = {"dagster/parent_run_id": "somebody", "dagster/root_run_id": TWO}
    run = make(
        instance,
        tags={**kept, **dropped, **family, "dagster/backfill": "fill"},
        parent_run_id="somebody",
        root_run_id=TWO,
    )
    instance.add_backfill(backfill(status))
    expected = {
        **kept,
        "dagster/parent_run_id": ONE,
        "dagster/root_run_id": TWO,
        FROM_FAILURE: "true",
    }
    if status is BulkActionStatus.REQUESTED:
        expected["dagster/backfill"] = "fill"
    assert tags_of_retry(instance, run) == expected
