"""What Dagster's daemon does with assets of scripts, in a real `dg dev`."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from lifecycle.dev import Dev
from project_fixture import make_project
from waiting import eventually

from dagster_slurm_components.jobs.lease import parse_ledger

pytestmark = pytest.mark.slow

SCRIPTS = """
scripts:
  - payload: report.sh
    args: [letters, "{{ partition_key }}"]
    op: {backfill_policy: {type: multi_run, max_partitions_per_run: 2}}
    array: {max_parallel: 2}
    assets: [{key: letters, partitions_def: {type: static, partition_keys: [a, "b c", ü]}}]
  - payload: report.sh
    args: [days, "{{ partition_key }}"]
    assets:
      - key: days
        partitions_def: {type: daily, start_date: "2026-03-28", end_date: "2026-03-31", timezone: Europe/Vienna}
        deps: [{asset: days, partition_mapping: {type: time_window, start_offset: -1, end_offset: -1}}]
  - payload: report.sh
    args: [summary, all]
    assets:
      - key: summary
        deps: [{asset: letters, partition_mapping: {type: all}}]
        automation_condition: "{{ dg.AutomationCondition.eager() }}"
  - payload: report.sh
    args: [grid, "{{ partition.colour }} on {{ partition.day }}"]
    assets: [{key: grid, partitions_def: "{{ colours }}"}]
  - payload: report.sh
    args: [guests, "{{ partition_key }}"]
    assets: [{key: guests, partitions_def: "{{ names }}"}]
  - payload: report.sh
    args: [clock, tick]
    assets:
      - key: clock
        freshness_policy: "{{ dg.FreshnessPolicy.time_window(datetime.timedelta(hours=1)) }}"
  - payload: report.sh
    args: [forecast, made]
    assets:
      - {key: forecast, deps: [stations], automation_condition: "{{ dg.AutomationCondition.eager() }}"}
  - payload: watch.sh
    checks: [{name: whole, asset: letters}]
  - payload: fails.sh
    assets: [{key: broken}]
  - payload: fails.sh
    leave: true
    assets: [{key: broken_later}]
"""
VARIABLES = """
import dagster as dg

@dg.template_var
def colours():
    days = dg.DailyPartitionsDefinition("2026-03-28", end_date="2026-03-31")
    return dg.MultiPartitionsDefinition({"colour": dg.StaticPartitionsDefinition(["red", "blue"]), "day": days})

@dg.template_var
def names():
    return dg.DynamicPartitionsDefinition(name="guests")
"""
MORE = """
from pathlib import Path

import dagster as dg
from dagster_slurm_components import slurm_maintenance

@dg.definitions
def more():
    @dg.schedule(cron_schedule="* * * * *", target="clock", default_status=dg.DefaultScheduleStatus.RUNNING)
    def once(context):
        done = context.instance.get_latest_materialization_event(dg.AssetKey("clock"))
        return dg.SkipReason("it has ticked") if done else dg.RunRequest()

    automation = dg.AutomationConditionSensorDefinition(
        "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1
    )
    each_minute = slurm_maintenance(
        project=Path(__file__).parent,
        cron_schedule="* * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(schedules=[once, each_minute], sensors=[automation])
"""
REPORT = """
. pipes.sh
pipes_materialize "$1" what="$2"
"""
WATCH = """
. pipes.sh
pipes_check letters whole true
"""
FAILS = """
echo 'no such table: rows' >&2
exit 3
"""
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md"
BACKFILL = """
mutation ($assets: [AssetKeyInput!]!, $keys: [String!]!) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $keys}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
FRESHNESS = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { freshnessStatusInfo { freshnessStatus } } }
}
"""


class Webhook(BaseHTTPRequestHandler):
    """Takes messages as Slack's incoming webhooks do."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self.server.posted.append(json.loads(body)["text"])  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def posted() -> Iterator[tuple[str, list[str]]]:
    """The address of a webhook, and the texts that were posted to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.posted = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/services/T/B/x", server.posted  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, posted: tuple[str, list[str]]) -> Iterator[Dev]:
    project = make_project(tmp_path_factory.mktemp("features") / "my project")
    file = project.scripts(SCRIPTS)
    file.write_text(f"{file.read_text()}template_vars_module: .variables\n")
    for name, text in {
        "variables.py": VARIABLES,
        "report.sh": REPORT,
        "watch.sh": WATCH,
        "fails.sh": FAILS,
    }.items():
        project.write(name, text)
    (project.defs.parent / "more.py").write_text(MORE)
    example = PAGE.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    (project.defs.parent / "alerts.py").write_text(example)
    environment, settings = {"SLACK_WEBHOOK": posted[0]}, "freshness: {enabled: true}\n"
    with Dev.running(project, "local", environment=environment, settings=settings) as made:
        yield made


def backfill(dev: Dev, asset: str, *keys: str) -> list[dg.DagsterRun]:
    """Launch a backfill as the UI does; return its runs when all have ended well, the oldest first."""
    made = dev.ask(BACKFILL, assets=[{"path": [asset]}], keys=keys)["launchPartitionBackfill"]
    chosen = dg.RunsFilter(tags={"dagster/backfill": made["backfillId"]})

    def ended() -> list[dg.DagsterRun] | None:
        with dev.instance() as instance:
            backfill = instance.get_backfill(made["backfillId"])
            assert backfill is not None
            return (
                [*reversed(instance.get_runs(chosen))]
                if backfill.status.name.startswith("COMPLETED")
                else None
            )

    runs = eventually(ended, f"the backfill of {asset} ends")
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}, [
        dev.said(run.run_id) for run in runs
    ]
    return runs


def reported(dev: Dev, asset: str) -> dict[str | None, Any]:
    """What the payload reported, by partition, in the order in which it did."""
    with dev.instance() as instance:
        records = instance.fetch_materializations(dg.AssetKey(asset), limit=100, ascending=True).records
        return {
            record.partition_key: record.asset_materialization.metadata["what"].value
            for record in records
            if record.asset_materialization
        }


def test_a_backfill_in_several_runs_and_what_follows_by_itself(dev: Dev) -> None:
    runs = backfill(dev, "letters", "a", "b c", "ü")
    assert len(runs) == 2
    assert reported(dev, "letters") == {"a": "a", "b c": "b c", "ü": "ü"}
    eventually(lambda: reported(dev, "summary") == {None: "all"}, "automation makes the summary")


def test_automation_follows_an_external_asset(dev: Dev) -> None:
    def has_begun() -> bool:
        """What happened before the first evaluation of conditions is no change to them."""
        with dev.instance() as instance:
            states = [each for each in instance.all_instigator_state() if each.name == "automation"]
        return any(each.instigator_data.cursor for each in states if each.instigator_data)

    eventually(has_begun, "the daemon evaluates conditions")
    with dev.instance() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("stations"))
    eventually(lambda: reported(dev, "forecast") == {None: "made"}, "automation makes the forecast")


def test_an_asset_made_from_its_own_past_is_made_in_order(dev: Dev) -> None:
    days = ["2026-03-28", "2026-03-29", "2026-03-30"]  # clocks are changed in the second
    backfill(dev, "days", *days)
    assert list(reported(dev, "days")) == days


def test_partitions_of_two_dimensions(dev: Dev) -> None:
    backfill(dev, "grid", "blue|2026-03-29", "red|2026-03-28")
    assert reported(dev, "grid") == {
        "blue|2026-03-29": "blue on 2026-03-29",
        "red|2026-03-28": "red on 2026-03-28",
    }


def test_partitions_that_are_added_while_dagster_runs(dev: Dev) -> None:
    with dev.instance() as instance:
        instance.add_dynamic_partitions("guests", ["Ada", "Grace H."])
    backfill(dev, "guests", "Grace H.")
    assert reported(dev, "guests") == {"Grace H.": "Grace H."}


def test_a_schedule_ticks_and_the_asset_is_fresh(dev: Dev) -> None:
    eventually(lambda: reported(dev, "clock") == {None: "tick"}, "the schedule launches its run")

    def fresh() -> bool:
        node = dev.ask(FRESHNESS, key={"path": ["clock"]})["assetNodeOrError"]
        return bool(node["freshnessStatusInfo"]["freshnessStatus"] == "HEALTHY")

    eventually(fresh, "the daemon evaluates the freshness policy")


def test_a_script_of_checks_alone_is_run_from_the_ui(dev: Dev) -> None:
    mutation = """
    mutation ($location: String!, $checks: [AssetCheckHandleInput!]!) {
      launchRun(executionParams: {
        selector: {repositoryLocationName: $location, repositoryName: "__repository__", jobName: "__ASSET_JOB",
                   assetSelection: [], assetCheckSelection: $checks}
        runConfigData: {}
      }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
    }
    """
    check = {"assetKey": {"path": ["letters"]}, "name": "whole"}
    launched = dev.ask(mutation, location=dev.location(), checks=[check])["launchRun"]
    run_id = launched["run"]["runId"]
    dev.ends(run_id, dg.DagsterRunStatus.SUCCESS)
    with dev.instance() as instance:
        (entry,) = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        assert entry.dagster_event is not None
        assert entry.dagster_event.asset_check_evaluation_data.passed


def test_maintenance_ticks_and_removes_what_is_over(dev: Dev) -> None:
    run_id = dev.launch("clock")
    dev.ends(run_id, dg.DagsterRunStatus.SUCCESS)
    (launch,) = dev.launches(run_id)
    folder, long_ago = Path(launch.run_dir), time.time() - 40 * 86400
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # a tick may come in between
            os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    eventually(lambda: not folder.exists(), "a tick of the schedule removes the run directory")

    def ended() -> dg.DagsterRun | None:
        done = dg.RunsFilter(job_name="slurm_maintenance", statuses=[dg.DagsterRunStatus.SUCCESS])
        with dev.instance() as instance:
            runs = instance.get_runs(done)
        return next((run for run in runs if str(folder) in dev.said(run.run_id)), None)

    run = eventually(ended, "the run that removed it ends well")
    assert run.tags["dagster/schedule_name"] == "slurm_maintenance_schedule"


@pytest.mark.parametrize(
    ("asset", "ends", "head", "reason"),
    [
        ("clock", dg.DagsterRunStatus.SUCCESS, "clock is made. Job {}", "COMPLETED"),
        (
            "broken",
            dg.DagsterRunStatus.FAILURE,
            "Run {run} failed. Job {}",
            "The payload ended with exit code 3",
        ),
        ("broken_later", dg.DagsterRunStatus.SUCCESS, "Job {} on ", "The payload ended with exit code 3"),
    ],
)
def test_alerts_as_the_page_has_them(
    dev: Dev, posted: tuple[str, list[str]], asset: str, ends: dg.DagsterRunStatus, head: str, reason: str
) -> None:
    run_id = dev.launch(asset)
    dev.ends(run_id, ends)

    def job() -> tuple[str, str] | None:
        left = [*dev.workdir.glob(f"runs/left-*/{asset}/*/ledger")]
        folders = [str(file.parent) for file in left] or [each.run_dir for each in dev.launches(run_id)]
        job_id = parse_ledger((Path(folders[0]) / "ledger").read_bytes()).job_id if folders else None
        return (job_id, folders[0]) if job_id else None

    job_id, folder = eventually(job, "the job is submitted")
    begin = head.format(job_id, run=run_id)
    text = eventually(
        lambda: next((text for text in posted[1] if begin in text), None), f"{begin!r} among {posted[1]}"
    )
    assert reason in text
    assert folder in text
    assert f"dg-slurm jobs logs {job_id} --profile local" in text
