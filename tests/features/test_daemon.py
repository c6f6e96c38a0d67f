"""What Dagster's daemon does with assets of scripts, in a real `dg dev`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from lifecycle.dev import Dev
from project_fixture import make_project
from waiting import eventually

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
  - payload: watch.sh
    checks: [{name: whole, asset: letters}]
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
import dagster as dg

@dg.definitions
def more():
    @dg.schedule(cron_schedule="* * * * *", target="clock", default_status=dg.DefaultScheduleStatus.RUNNING)
    def once(context):
        done = context.instance.get_latest_materialization_event(dg.AssetKey("clock"))
        return dg.SkipReason("it has ticked") if done else dg.RunRequest()

    automation = dg.AutomationConditionSensorDefinition(
        "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=1
    )
    return dg.Definitions(schedules=[once], sensors=[automation])
"""
REPORT = """
. pipes.sh
pipes_materialize "$1" what="$2"
"""
WATCH = """
. pipes.sh
pipes_check letters whole true
"""
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


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    project = make_project(tmp_path_factory.mktemp("features") / "my project")
    file = project.scripts(SCRIPTS)
    file.write_text(f"{file.read_text()}template_vars_module: .variables\n")
    for name, text in {"variables.py": VARIABLES, "report.sh": REPORT, "watch.sh": WATCH}.items():
        project.write(name, text)
    (project.defs.parent / "more.py").write_text(MORE)
    made = Dev(project, "local", settings="freshness: {enabled: true}\n")
    try:
        made.start()
        yield made
    finally:
        made.stop()


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
