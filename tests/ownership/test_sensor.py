"""What the sensor costs and says, and what a run says of its jobs while they wait."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from ownership.work import SOON, Work
from waiting import eventually

from dagster_slurm_components.hosts.local import InProcessHost

STATUS = dg.DagsterRunStatus
ONE = """
@dg.asset
def a(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ACT, args=["a"]).get_results()
"""


def test_a_run_tells_of_its_job_while_the_payload_runs(work: Work) -> None:
    work.assets(ONE)
    run = work.begin()
    work.begins("a")
    job = work.job()
    tags = eventually(
        lambda: {"slurm/job_id"} <= (found := work.run(run.id).tags).keys() and found, "tags", 10
    )
    assert (tags["slurm/job_id"], tags["slurm/profile"]) == (job, "local")
    engine = work.instance.all_logs(run.id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    told = [entry.dagster_event.engine_event_data.metadata for entry in engine if entry.dagster_event]
    assert [metadata["job/id"].value for metadata in told if "job/id" in metadata] == [job]
    assert work.status(run.id) is STATUS.STARTED
    work.open()
    run.ends()


@pytest.mark.parametrize("retries", [1, 0], ids=["a retry is promised in vain", "no retry is promised"])
def test_the_sensor_tells_each_thing_once(work: Work, retries: int) -> None:
    """A run is found dead, and its job goes on. Dagster's daemon can't retry it, whatever its tag promises: this run
    was launched by Python, as by `dg launch`, and has no remote origin (F3)."""
    work.assets(ONE)
    run = work.start(tags={"dagster/max_retries": str(retries)})
    work.begins("a")
    job = work.job()
    run.kill()
    sensor = work.sensor()
    now = datetime.now(timezone.utc)

    def logged_after_pass(minutes_ago: int) -> int:
        with freeze_time(now - timedelta(minutes=minutes_ago)):
            sensor.tick()
        return len(work.instance.all_logs(run.id))

    logged = [logged_after_pass(minutes_ago) for minutes_ago in (20, 15, 10, 5)]
    assert work.status(run.id) is STATUS.FAILURE
    assert work.run(run.id).tags["dagster/will_retry"] == ("true" if retries else "false")
    assert len(sensor.notes) == len(set(sensor.notes)), sensor.notes
    assert sum(job in note for note in sensor.notes) == 1, sensor.notes
    assert logged[2:] == logged[1:3], "nothing new was said: each failure is news to every sensor of failures"
    assert work.live() == {job}


PER_RUN = ("get_logs_for_run", "get_records_for_run", "get_stats_for_run", "get_step_stats_for_run")
"""What an event log storage is asked about one run."""


def count(monkeypatch: pytest.MonkeyPatch, target: Any, *names: str) -> Counter[str]:
    """Count the calls of methods, and those among them that set no limit."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(target, name)
        signature = inspect.signature(real)

        def call(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            if signature.bind(*args, **kwargs).arguments.get("limit") is None:
                counted["without a limit"] += 1
            return real(*args, **kwargs)

        return call

    for name in names:
        monkeypatch.setattr(target, name, counting(name))
    return counted


def test_d22_a_pass_of_the_sensor_reads_no_run_however_many_there_are(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.assets(ONE)
    run = work.start()
    work.begins("a")
    job = work.job()
    run.kill()
    tags = {"slurm/profile": "local"}
    for n in range(500):  # what they logged does not matter, for nobody may read it
        status = (STATUS.SUCCESS, STATUS.FAILURE, STATUS.CANCELED, STATUS.STARTED)[n % 4]
        other = dg.DagsterRun(job_name="everything", run_id=str(uuid4()), status=status, tags=tags)
        work.instance.run_storage.add_run(other)
    sensor = work.sensor()
    with monkeypatch.context() as patch:
        reads = count(patch, work.instance.event_log_storage, *PER_RUN)
        calls = count(patch, InProcessHost, "call")
        began = time.monotonic()
        sensor.tick()
        print(f"the sensor's pass took {time.monotonic() - began:.2f} s")
    assert work.status(run.id) is STATUS.FAILURE, "the one that is dead was found among them"
    assert work.live() == {job}
    assert sum(reads[name] for name in PER_RUN) == 0
    assert calls["call"] <= 20


MANY = """
@dg.asset
def many(context: dg.AssetExecutionContext, compute: ComputeResource):
    jobs = [compute.submit(context=context, payload_path=ACT, args=["many"]) for _ in range(24)]
    return dg.MaterializeResult(metadata={"job": jobs[-1].result().metadata["job/id"]})
"""


def test_d22_a_pass_of_the_sensor_asks_the_host_no_more_for_many_jobs_than_for_one(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.assets(MANY)
    run = work.start()
    work.begins("many", 24)
    run.kill()
    with freeze_time(datetime.now(timezone.utc) - timedelta(minutes=5)):  # the daemon had its time
        work.instance.report_run_failed(work.run(run.id))
    sensor = work.sensor()
    with monkeypatch.context() as patch:
        calls = count(patch, InProcessHost, "call")
        sensor.tick()
    assert len(sensor.notes) == 24, "each is left, and told of"
    assert calls["call"] <= 20


STEPS = 8
ASSETS = "".join(ONE.replace("def a(", f"def a{n}(") for n in range(STEPS))


def test_d22_a_step_does_not_read_the_whole_log_of_its_run(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.assets(ASSETS)
    work.open()
    with monkeypatch.context() as patch:
        reads = count(patch, work.instance.event_log_storage, *PER_RUN)
        run = work.begin()
        eventually(lambda: work.trace("end")["a"] == STEPS, "all payloads end", SOON)
        run.thread.join(SOON)
    assert run.over
    assert reads["without a limit"] == 0
    assert sum(reads[name] for name in PER_RUN) <= 2 * STEPS
