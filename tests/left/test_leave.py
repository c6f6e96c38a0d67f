"""Scripts that leave their jobs: the step ends at once, and the sensor reports what comes of them, once."""

from __future__ import annotations

import dagster as dg
from left.conftest import SOON, Left
from project_fixture import failure_text
from waiting import eventually

STATUS = dg.DagsterRunStatus
ONE = "{args: [a, a], assets: [{key: a}], checks: [{name: ok, asset: a}]}"


def test_a_step_ends_and_the_sensor_reports(left: Left) -> None:
    left.scripts(ONE, "{args: [b], assets: [{key: b, deps: [a]}]}")
    result = left.run()
    assert result.success, failure_text(result)
    assert result.get_asset_materialization_events() == []
    assert [event.step_key for event in result.all_events if event.is_step_skipped] == ["b"]
    (seen,) = left.observed("a")
    assert seen.metadata["job/state"].value == "SUBMITTED"
    assert (left.states(), left.made("a")) == (["left"], [])
    left.tick()
    assert (left.states(), left.made("a"), left.notes) == (["left"], [], [])
    left.open()
    left.reported()
    (made,) = left.made("a")
    assert made.metadata["rows"].value == 7
    assert made.metadata["job/run_directory"].value == seen.metadata["job/run_directory"].value
    assert made.metadata["job/left_by"].value == result.run_id
    assert made.tags["dagster/data_version"] == "v1"
    (check,) = left.checks("a")
    record = left.instance.get_latest_materialization_event(dg.AssetKey("a"))
    assert check.passed
    assert record is not None
    assert check.target_materialization_data is not None
    assert check.target_materialization_data.timestamp == record.timestamp
    left.tick()
    assert (len(left.made("a")), len(left.checks("a")), left.notes) == (1, 1, [])


def test_a_failure_stands_as_a_run_that_failed(left: Left) -> None:
    left.scripts(ONE)
    left.open("a", "fail-a")
    assert left.run().success
    left.reported()
    assert left.made("a") == []
    (check,) = left.checks("a")
    assert check.target_materialization_data is None
    (failed,) = left.runs(STATUS.FAILURE)
    assert failed.asset_selection == {dg.AssetKey("a")}
    (entry,) = [
        each
        for each in left.instance.all_logs(failed.run_id)
        if each.dagster_event and each.dagster_event.is_run_failure
    ]
    assert "no luck today" in entry.message
    (note,) = left.notes
    assert "exit code 1" in note
    planned = left.instance.get_latest_planned_materialization_info(dg.AssetKey("a"))
    assert planned is not None
    assert planned.run_id == failed.run_id
    left.tick()
    assert len(left.runs(STATUS.FAILURE)) == 1
