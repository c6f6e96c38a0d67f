"""Launches in the event log, and a pass of the sensor over healthy, just ended and dead runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier, Thread

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from dagster_slurm_components.pipes.heal import (
    failed_runs,
    heal_dead_runs,
    heal_if_dead,
    remind_of_retries,
    tell_of_left_jobs,
)
from dagster_slurm_components.pipes.launches import (
    Launch,
    Supervisor,
    history,
    last_launch,
    record,
    record_end,
    taken_over,
)

from dagster_slurm_components.hosts.satellite.processes import identify
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.pipes import launches
from dagster_slurm_components.pipes.target import Target

STATUS = dg.DagsterRunStatus
NODE = os.uname().nodename


def alive() -> Supervisor:
    pid = os.getpid()
    return Supervisor(NODE, pid, identify([pid])[pid])


@pytest.fixture(scope="module")
def dead() -> Supervisor:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = identify([process.pid])[process.pid]
    process.communicate(b"\n")
    return Supervisor(NODE, process.pid, start)


def launch(run: dg.DagsterRun, who: Supervisor, *, attempt: int = 0, partition: str | None = None) -> Launch:
    identity = JobIdentity(run.run_id, "step", partition, attempt)
    return Launch(
        identity, "local", "local", f"/w/{identity.folder}", "hash", who, {"lost": 1}, {"mem": "1M"}
    )


def make(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **more: object) -> dg.DagsterRun:
    return create_run_for_test(instance, job_name="a", status=status, **more)  # type: ignore[arg-type]


def test_a_pass_changes_only_the_dead(instance: dg.DagsterInstance, dead: Supervisor) -> None:
    healthy = make(instance, STATUS.STARTED)
    elsewhere = make(instance, STATUS.STARTED)
    ended = make(instance, STATUS.SUCCESS)
    unknown = make(instance, STATUS.STARTED)
    gone = make(instance, STATUS.STARTED)
    cancelling = make(instance, STATUS.CANCELING)
    record(instance, healthy, launch(healthy, alive()), adopted=False)
    record(instance, elsewhere, launch(elsewhere, replace(dead, node="elsewhere")), adopted=False)
    for run in (ended, gone, cancelling):
        record(instance, run, launch(run, dead), adopted=False)
    healed = {each.run_id for each in heal_dead_runs(instance)}
    assert healed == {gone.run_id, cancelling.run_id}

    def status(run: dg.DagsterRun) -> dg.DagsterRunStatus:
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.status

    assert [status(run) for run in (healthy, elsewhere, unknown)] == [STATUS.STARTED] * 3
    assert [status(run) for run in (ended, gone, cancelling)] == [
        STATUS.SUCCESS,
        STATUS.FAILURE,
        STATUS.CANCELED,
    ]
    assert list(heal_dead_runs(instance)) == []


def test_a_run_that_ends_between_the_looks_is_left_alone(
    instance: dg.DagsterInstance, dead: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(instance, STATUS.STARTED)
    record(instance, run, launch(run, dead), adopted=False)

    def ends(self: Supervisor) -> bool:
        instance.handle_run_event(run.run_id, _success(run))
        return True

    monkeypatch.setattr(Supervisor, "known_dead", ends)
    assert heal_if_dead(instance, run.run_id) is None


def _success(run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name)


def test_a_launch_is_read_back_as_it_was(instance: dg.DagsterInstance) -> None:
    run = make(instance, STATUS.STARTED)
    written = launch(run, alive(), partition="2026-01-01|ü")
    record(instance, run, written, adopted=False)
    assert history(instance, run.run_id).launches == [written]
    record_end(instance, run, written.identity, "FAILED")
    assert history(instance, run.run_id).launches == [replace(written, ended="FAILED")]


def test_a_retry_continues_its_own_step_and_partition_only(instance: dg.DagsterInstance) -> None:
    first = make(instance, STATUS.FAILURE)
    one, other = launch(first, alive(), partition="one"), launch(first, alive(), partition="other")
    record(instance, first, one, adopted=False)
    record(instance, first, other, adopted=False)
    retry = make(instance, STATUS.STARTED, parent_run_id=first.run_id, root_run_id=first.run_id)
    fresh = make(instance, STATUS.STARTED)

    def found(run: dg.DagsterRun, step: str, partition: str | None) -> Launch | None:
        return last_launch(instance, run, history(instance, run.run_id), step, partition)

    assert found(retry, "step", "one") == one
    assert found(retry, "step", "other") == other
    assert found(retry, "step", None) is None
    assert found(retry, "sibling", "one") is None
    assert found(fresh, "step", "one") is None


def test_known_dead_needs_the_same_start(dead: Supervisor) -> None:
    assert dead.known_dead()
    assert not alive().known_dead()
    assert replace(alive(), start="0-other boot").known_dead()
    assert not replace(dead, node="elsewhere").known_dead()
    assert Path("/proc").exists() or dead.start


def child_of(run: dg.DagsterRun) -> dict[str, object]:
    tags = {"dagster/parent_run_id": run.run_id, "dagster/root_run_id": run.run_id}
    return {"parent_run_id": run.run_id, "root_run_id": run.run_id, "tags": tags}


def test_two_retries_of_one_run_do_not_follow_one_job(instance: dg.DagsterInstance, dead: Supervisor) -> None:
    """As when a person retries a run that Dagster's daemon retries, too: who came first goes on."""
    parent = make(instance, STATUS.FAILURE)
    record(instance, parent, launch(parent, dead), adopted=False)
    first, second, third = (make(instance, STATUS.STARTED, **child_of(parent)) for _ in range(3))
    record(instance, first, launch(parent, alive()), adopted=True)
    with pytest.raises(dg.Failure, match=f"Run {first.run_id} follows the job"):
        record(instance, second, launch(parent, alive()), adopted=True)
    record(instance, second, launch(second, alive()), adopted=False)  # a job of its own
    instance.report_run_failed(first)
    record(instance, second, launch(parent, dead), adopted=True)
    record(instance, third, launch(parent, alive()), adopted=True)  # the second one's process is gone


def test_of_two_retries_in_the_same_moment_one_goes_on(
    instance: dg.DagsterInstance, dead: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither can read of the other before it writes."""
    parent = make(instance, STATUS.FAILURE)
    record(instance, parent, launch(parent, dead), adopted=False)
    retries = [make(instance, STATUS.STARTED, **child_of(parent)) for _ in range(2)]
    both_write, both_wrote = Barrier(2, timeout=60), Barrier(2, timeout=60)
    report = launches._report

    def write(*args: object) -> None:
        both_write.wait()
        report(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(launches, "_report", write)
    refused: list[dg.Failure] = []

    def take_up(run: dg.DagsterRun) -> None:
        try:
            record(
                instance,
                run,
                launch(parent, alive()),
                adopted=True,
                pause=lambda seconds: both_wrote.wait() and None,
            )
        except dg.Failure as failure:
            refused.append(failure)

    threads = [Thread(target=take_up, args=[run]) for run in retries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = min(retries, key=lambda run: (history(instance, run.run_id).launches[0].recorded, run.run_id))
    assert [failure.description.split()[:2] for failure in refused if failure.description] == [
        ["Run", first.run_id]
    ]


def test_what_another_retry_follows_collected_or_saw_end_is_not_left(
    instance: dg.DagsterInstance, dead: Supervisor
) -> None:
    parent = make(instance, STATUS.FAILURE)
    left = launch(parent, dead)
    record(instance, parent, left, adopted=False)
    given_up = make(instance, STATUS.FAILURE, **child_of(parent))
    record(instance, given_up, left, adopted=True)
    assert not taken_over(instance, given_up, left)
    other = make(instance, STATUS.STARTED, **child_of(parent))
    record(instance, other, launch(parent, alive()), adopted=True)
    assert taken_over(instance, given_up, left)
    instance.report_run_failed(other)
    assert not taken_over(instance, given_up, left), "that one gave it up, too"
    record_end(instance, other, left.identity, "FAILED")
    assert taken_over(instance, given_up, left)


def test_only_failures_without_a_promised_retry_leave_jobs(
    instance: dg.DagsterInstance, dead: Supervisor
) -> None:
    alone = make(instance, STATUS.FAILURE)
    make(instance, STATUS.FAILURE, tags={"dagster/will_retry": "true"})
    make(instance, STATUS.CANCELED)
    now = datetime.now(timezone.utc)

    def found(until: timedelta) -> list[str]:
        runs = failed_runs(instance, updated_after=now - timedelta(days=1), updated_before=now + until)
        return [run.run_id for run in runs]

    assert found(timedelta(minutes=-1)) == []
    assert found(timedelta(minutes=1)) == [alone.run_id]
    record(instance, alone, launch(alone, dead), adopted=False)
    make(instance, STATUS.STARTED, **child_of(alone))

    def place_of(profile: str) -> Target:
        raise AssertionError("a run that is retried has handed its jobs on")

    assert list(tell_of_left_jobs(instance, place_of, alone)) == []


def test_a_failure_that_the_daemon_missed_is_told_again_once_it_had_its_time(
    instance: dg.DagsterInstance, dead: Supervisor
) -> None:
    promised = {"dagster/will_retry": "true"}
    missed, retried, foreign = (make(instance, STATUS.FAILURE, tags=promised) for _ in range(3))
    make(instance, STATUS.SUCCESS, **child_of(retried))
    final = make(instance, STATUS.FAILURE, tags={"dagster/will_retry": "false"})
    for run in (missed, retried, final):
        record(instance, run, launch(run, dead), adopted=False)
    assert not instance.all_logs(foreign.run_id)
    now = datetime.now(timezone.utc)

    def told(before: datetime) -> list[str]:
        found = remind_of_retries(instance, updated_after=now - timedelta(days=1), updated_before=before)
        return [healed.run_id for healed in found]

    assert told(now - timedelta(minutes=1)) == []
    assert told(now + timedelta(minutes=1)) == [missed.run_id]
    failures = instance.all_logs(missed.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert len(failures) == 1
