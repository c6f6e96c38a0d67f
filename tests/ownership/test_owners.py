"""Runs that are terminated, die or are retried: who may touch a job, and who finishes what they began."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import freeze_time
from fault_proxy import FaultProxy
from ownership.work import SLURM, SOON, Run, Work
from waiting import eventually

import slurm_testcluster as slurm

ONE = """
@dg.asset
def a(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ACT, args=["a"]).get_results()
"""
STATUS = dg.DagsterRunStatus


@pytest.mark.parametrize(
    ("profile", "by"),
    [("local", "execute_job"), ("local", "the UI"), pytest.param("staging", "the UI", marks=SLURM.marks)],
)
def test_d3_f2_the_sensor_leaves_the_job_of_a_healthy_retry_alone(work: Work, by: str) -> None:
    """The first run was killed and then marked as cancelled."""
    work.assets(ONE)
    run = work.start()
    work.begins("a")
    job = work.job()
    sensor = work.sensor()
    sensor.tick()
    assert (sensor.notes, work.live()) == ([], {job})
    run.kill()
    work.instance.report_run_canceled(work.run(run.id))
    family = {"dagster/parent_run_id": run.id, "dagster/root_run_id": run.id}
    again = work.start(parent=run.id, tags=family if by == "the UI" else {})
    work.hears(again, f"Job {job} ")
    sensor.tick()
    sensor.tick()
    assert (sensor.notes, work.live()) == ([], {job})
    work.open()
    again.ends()
    assert work.trace("begin") == work.trace("end") == {"a": 1}


@pytest.mark.parametrize("status", [STATUS.CANCELED, STATUS.FAILURE])
@pytest.mark.parametrize("step", ["a", "b"])
def test_a_job_is_left_to_a_re_execution_that_has_only_been_made(
    work: Work, status: dg.DagsterRunStatus, step: str
) -> None:
    """Its run is there, and has claimed nothing yet: that its step is among those that it will execute decides."""
    work.assets(ONE)
    run = work.start()
    work.begins("a")
    job = work.job()
    run.kill()
    with freeze_time(datetime.now(timezone.utc) - timedelta(minutes=5)):  # the daemon had its time
        first = work.run(run.id)
        if status is STATUS.CANCELED:
            work.instance.report_run_canceled(first)
        else:
            work.instance.report_run_failed(first)
    made = dg.DagsterRun(
        job_name=first.job_name,
        run_id=str(uuid4()),
        status=STATUS.NOT_STARTED,
        step_keys_to_execute=[step],
        parent_run_id=run.id,
        root_run_id=run.id,
    )
    work.instance.run_storage.add_run(made)
    sensor = work.sensor()
    sensor.tick()
    if step == "a":
        assert (sensor.notes, work.live()) == ([], {job})
    else:
        assert [note for note in sensor.notes if job in note], "it is cancelled, or told of"
    work.instance.delete_run(made.run_id)
    sensor.tick()
    if status is STATUS.FAILURE:
        assert sum(job in note for note in sensor.notes) == 1
        assert work.live() == {job}
    else:
        eventually(lambda: not work.live(), "the sensor's cancellation ends the job", SOON)


def test_d4_a_job_that_was_to_be_cancelled_while_its_host_was_away_is_cancelled_later(work: Work) -> None:
    work.assets(ONE)
    run = work.start()
    work.begins("a")
    job = work.job()
    (work.project.root / "down").touch()
    terminate(work, run)
    run.kill()
    work.instance.report_run_canceled(work.run(run.id))
    assert work.live() == {job}
    (work.project.root / "down").unlink()
    sensor = work.sensor()

    def over() -> bool:
        sensor.tick()
        return not work.live()

    eventually(over, "the sensor ends the job", SOON, pause=0.5)
    assert any(job in note for note in sensor.notes) or "ancel" in work.said(run.id)
    work.open()
    again = work.begin(parent=run.id)
    again.ends()
    assert work.trace("begin") == {"a": 2}
    assert work.trace("end") == {"a": 1}


def terminate(work: Work, run: Run) -> None:
    """Terminate a run as the UI does, and give its worker time to begin with that."""
    work.instance.report_run_canceling(work.run(run.id))
    before = len(work.instance.all_logs(run.id))
    run.interrupt()
    with suppress(AssertionError):
        eventually(lambda: len(work.instance.all_logs(run.id)) > before, "it says what it does", 5)


@pytest.fixture
def proxy(work: Work, cluster: slurm.Cluster) -> Iterator[FaultProxy]:
    """A proxy between the profile and the cluster's sshd."""
    profile = work.project.root / "profiles" / "staging.yaml"
    text = profile.read_text()
    port, known = re.search(r"port: (\d+)", text), re.search(r'known_hosts_file: "?([^"\n]+)', text)
    assert port
    assert known
    made = FaultProxy(int(port[1]))
    key = Path(known[1]).read_text().split(" ", 1)[1]
    hosts = work.file("known_hosts", f"[127.0.0.1]:{made.port} {key}")
    text = text.replace(port[0], f"port: {made.port}\n  reconnect_interval: 0.2")
    profile.write_text(text.replace(known[1], str(hosts)))
    yield made
    made.close()


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("profile", ["staging"])
def test_f1_no_second_job_beside_one_whose_worker_died_while_it_was_to_be_cancelled(
    work: Work, proxy: FaultProxy
) -> None:
    work.assets(ONE)
    run = work.start()
    work.begins("a")
    proxy.refuse = True
    logins = proxy.accepted
    proxy.cut()
    eventually(lambda: proxy.accepted > logins, "its worker notices that the host is away", SOON)
    terminate(work, run)
    run.kill()
    work.instance.report_run_failed(work.run(run.id))  # as Dagster's run monitoring does
    proxy.refuse = False
    again = work.start(parent=run.id)

    def has_a_job() -> bool:
        assert len(work.live()) <= 1, "two jobs side by side"
        return any(f"Job {job} " in work.said(again.id) for job in work.jobs())

    eventually(has_a_job, "the retry has a job", SOON)
    assert len(work.live()) == 1
    work.open()
    again.ends()
    work.sensor().tick()
    eventually(lambda: not work.live(), "no job is left", SOON)
    assert work.trace("end") == {"a": 1}


TWO = """
@dg.asset
def a(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ACT, args=["a"]).get_results()


@dg.asset
def b(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ACT, args=["b"]).get_results()
"""


def test_d9_an_error_that_nobody_expects_ends_the_step_and_not_the_watching(work: Work) -> None:
    work.assets(TWO)
    run = work.start()
    eventually(lambda: work.trace("begin"), "a payload begins", SOON)
    (work.project.root / "confuse").touch()
    eventually(lambda: not (work.project.root / "confuse").exists(), "the status is read", SOON)
    work.open()
    eventually(lambda: run.over, "the steps end", SOON)
    assert "nobody expects this" in work.said(run.id)
    assert work.trace("end") == {"a": 1, "b": 1}
    succeeded = work.instance.all_logs(run.id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    assert len(succeeded) >= 1, "the other step's job was watched to its end"


LAUNCH = "dagster_slurm/launch"
"""Metadata key of records in the event log, as releases before the lease wrote them."""


def test_d21_what_a_newer_release_wrote_is_left_alone_and_harms_nothing(work: Work) -> None:
    work.assets(ONE)
    run = work.start()
    work.begins("a")
    job = work.job()
    run.kill()
    for file in work.workdir.glob("runs/**/lease"):
        known = json.loads(file.read_text())
        file.write_text(json.dumps({"version": 99, "epoch": known["epoch"], "something": "else"}))
    for entry in work.instance.all_logs(run.id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        assert entry.dagster_event is not None
        metadata = entry.dagster_event.engine_event_data.metadata
        if LAUNCH in metadata:
            raw = json.loads(str(metadata[LAUNCH].value))
            text = dg.MetadataValue.text(json.dumps({**raw, "something": "else"}))
            data = EngineEventData(metadata={LAUNCH: text})
            work.instance.report_engine_event("A newer release.", work.run(run.id), data, step_key="a")
    work.sensor().tick()
    assert work.status(run.id) is STATUS.FAILURE, "the sensor does its other work"
    again = work.begin(parent=run.id)
    again.ends(STATUS.FAILURE)
    assert "newer release" in work.said(again.id)
    assert work.live() == {job}
    assert work.trace("begin") == {"a": 1}
