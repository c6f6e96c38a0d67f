"""Scripts that leave their jobs: the step ends at once, and the sensor reports what comes of them, once."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from click.testing import CliRunner
from left.conftest import SOON, Left
from project_fixture import failure_text
from reports_fixture import checked, materialized, said
from waiting import eventually

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.cli.main import main
from dagster_slurm_components.errors import DagsterSlurmError

STATUS = dg.DagsterRunStatus
SLURM = [pytest.param("staging", marks=[pytest.mark.slurm, pytest.mark.slow])]
ONE = "{args: [a, a], assets: [{key: a}], checks: [{name: ok, asset: a}]}"


@pytest.mark.smoke
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


def test_partitions(left: Left) -> None:
    """Each partition has a job of its own, and a range has one for all its keys."""
    keys = "partitions_def: {type: static, partition_keys: [x, y, z]}"
    left.scripts(
        f"{{args: [a, a], assets: [{{key: a, {keys}}}], checks: [{{name: ok, asset: a}}]}}",
        f"{{args: [c], op: {{backfill_policy: {{type: single_run}}}}, assets: [{{key: c, {keys}}}]}}",
    )
    for key in ("x", "y"):
        assert left.run("a", partition_key=key).success
    tags = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "z"}
    assert left.run("c", tags=tags).success
    left.open("a-y", "c")
    eventually(lambda: left.tick() and len(left.made("a")) == 1 and len(left.made("c")) == 3, "results", SOON)
    assert [each.partition for each in left.made("a")] == ["y"]
    assert sorted(str(each.partition) for each in left.made("c")) == ["x", "y", "z"]
    assert {each.partition for each in left.observed("c")} == {"x", "y", "z"}
    left.open("a-x", "fail-a-x")
    left.reported()
    (failed,) = left.runs(STATUS.FAILURE)
    assert failed.tags["dagster/partition"] == "x"
    planned = left.instance.get_latest_planned_materialization_info(dg.AssetKey("a"), partition="x")
    assert planned is not None
    assert planned.run_id == failed.run_id


def test_a_job_that_lives_is_not_submitted_again(left: Left) -> None:
    """By a re-execution or by another run; one of other content is ended first."""
    left.scripts(ONE)
    first = left.run()
    second = left.run()
    assert (first.success, second.success) == (True, True)
    eventually(lambda: left.begun() == ["a"], "the payload begins", SOON)
    jobs = [each.metadata["job/id"].value for each in left.observed("a")]
    assert jobs[0] == jobs[1]
    left.project.write("payload.py", (left.project.defs / "payload.py").read_text() + "# changed\n")
    third = left.run()
    assert third.success, failure_text(third)
    eventually(lambda: left.begun() == ["a", "a"], "the other payload begins", SOON)
    assert left.states() == ["left"]
    left.open()
    left.reported()
    (made,) = left.made("a")
    assert made.metadata["job/left_by"].value == third.run_id
    assert left.runs(STATUS.FAILURE) == []
    left.run()
    assert left.states() == ["left"], "what was reported is made anew"


def test_a_job_that_failed_before_it_was_looked_at_is_made_anew_and_reported(left: Left) -> None:
    left.scripts(ONE)
    left.open("a", "fail-a")
    assert left.run().success
    eventually(lambda: "exit=" in _status(left), "the job ends", SOON)
    (left.gates / "fail-a").unlink()
    again = left.run()
    assert again.success, failure_text(again)
    left.reported()
    assert len(left.made("a")) == 1
    assert len(left.runs(STATUS.FAILURE)) == 1


def _status(left: Left) -> str:
    files = [*left.project.root.rglob("a/0/status")]
    return files[0].read_text() if files else ""


def test_a_job_is_cancelled_from_a_terminal(left: Left) -> None:
    left.scripts(ONE)
    assert left.run().success
    eventually(lambda: left.begun() == ["a"], "the payload begins", SOON)
    listed = CliRunner().invoke(main, ["jobs", "list", "--json", "--profile", left.profile])
    (row,) = json.loads(listed.stdout)
    assert (row["left"], row["run_id"]) == (True, left.runs(STATUS.SUCCESS)[0].run_id)
    shown = CliRunner().invoke(main, ["jobs", "list", "--profile", left.profile])
    assert "RUNNING, left" in shown.stdout
    done = CliRunner().invoke(main, ["jobs", "cancel", row["job_id"], "--profile", left.profile])
    assert "the sensor" in done.stdout, done.output
    left.reported()
    assert (left.made("a"), left.runs(STATUS.FAILURE)) == ([], [])
    (cancelled,) = left.runs(STATUS.CANCELED)
    assert cancelled.asset_selection == {dg.AssetKey("a")}
    assert len(left.notes) == 1


def test_what_the_payload_leaves_out(left: Left) -> None:
    """An asset that it does not report is made all the same, unless it is skippable; a check of which it is silent has
    failed."""
    left.scripts(
        "{args: [a], assets: [{key: a}, {key: b, deps: [a]}, {key: c, skippable: true}],"
        " checks: [{name: ok, asset: a, blocking: true}]}"
    )
    left.open()
    assert left.run().success
    left.reported()
    assert [len(left.made(key)) for key in "abc"] == [1, 1, 0]
    (check,) = left.checks("a")
    assert (check.passed, check.blocking) == (False, True)
    assert "did not report" in (check.description or "")
    a, b = left.made("a")[0], left.made("b")[0]
    assert b.tags["dagster/input_data_version/a"] == a.tags["dagster/data_version"]


def test_what_is_refused_is_named_and_the_rest_arrives(left: Left, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [
        '{"method": ["log"], "params": {}}',
        json.dumps(said("report_progress", pct=5)),
        *(json.dumps(materialized(key, loss=float("nan"))) for key in ("x", "a", "a")),
        json.dumps(checked("a", "z", True)),
        json.dumps(checked("a", "ok", True)),
        '{"half',
    ]
    left.project.write("lines.jsonl", "").write_text("\n".join(lines))
    left.project.write("refused.sh", 'cat lines.jsonl >>"$DAGSTER_SLURM_MESSAGES"\n')
    left.scripts(
        "{payload: refused.sh, files: [lines.jsonl], assets: [{key: a}], checks: [{name: ok, asset: a}]}"
    )
    assert left.run().success
    left.reported()
    (asset,) = left.made("a")
    assert asset.metadata["loss"].value == "nan"
    assert [check.passed for check in left.checks("a")] == [True]
    told = capfd.readouterr().err
    for part in (
        '{"method": ["log"]',
        "report_progress",
        "asset `x` was left out",
        "check `z` of asset `a` was left out",
        "asset `a` 2 times",
        "numbers that are not finite",
        '{"half',
    ):
        assert part in told


def test_declarative_automation_goes_on_from_a_report(left: Left) -> None:
    left.scripts(ONE)

    after = "@dg.asset(deps=['a'], automation_condition=dg.AutomationCondition.eager())\ndef after(): ...\n"
    (left.project.defs.parent / "after.py").write_text(f"import dagster as dg\n\n\n{after}")
    with left.project.definitions() as definitions:

        def asked(cursor: object) -> dg.EvaluateAutomationConditionsResult:
            return dg.evaluate_automation_conditions(defs=definitions, instance=left.instance, cursor=cursor)

        before = asked(None)
        assert left.run("a").success
        waiting = asked(before.cursor)
        assert waiting.total_requested == 0
        left.open()
        left.reported()
        assert asked(waiting.cursor).get_num_requested(dg.AssetKey("after")) == 1


def test_a_profile_may_leave_and_another_wait(left: Left) -> None:
    """Where the job is waited for, assets that the payload does not report are made all the same."""
    profile = left.project.root / "profiles" / f"{left.profile}.yaml"
    profile.write_text(f"{profile.read_text()}leave: true\n")
    waits = f"profiles: {{{left.profile}: {{leave: false}}}}"
    left.project.scripts(
        f"defaults: {{payload: payload.py, env: {{GATES: '{left.gates}'}}}}\n"
        f"scripts:\n  - {{args: [a], assets: [{{key: a}}, {{key: s, skippable: true}}], {waits}}}\n"
        "  - {args: [b], assets: [{key: b}]}\n"
    )
    left.open("a")
    result = left.run()
    assert result.success, failure_text(result)
    assert ([len(left.made(key)) for key in "asb"], left.states()) == ([1, 0, 0], ["left"])


def test_definitions_that_were_loaded_to_wait(left: Left) -> None:
    """Nothing is submitted where Dagster would materialize what is not there yet."""
    left.project.scripts(
        f"defaults: {{payload: payload.py, env: {{GATES: '{left.gates}'}}}}\n"
        "scripts: [{args: [a], assets: [{key: a}]}]\n"
    )
    profile = left.project.root / "profiles" / f"{left.profile}.yaml"
    with left.project.definitions() as definitions:
        job = definitions.resolve_implicit_global_asset_job_def()
        profile.write_text(f"{profile.read_text()}leave: true\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAGSTER_SLURM_PROFILE", left.profile)
            result = job.execute_in_process(instance=left.instance, raise_on_error=False)
    assert "reload the code location" in failure_text(result)
    assert (left.states(), left.begun()) == ([], [])


@pytest.mark.parametrize("left", SLURM, indirect=True)
def test_an_expected_start_is_observed_once(left: Left) -> None:
    left.scripts("{args: [a], resources: {begin: now+1hour}, assets: [{key: a}]}")
    assert left.run().success
    eventually(lambda: left.tick() and len(left.observed("a")) == 2, "a start is expected", SOON)
    assert "job/expected_start" in left.observed("a")[1].metadata
    left.tick()
    assert len(left.observed("a")) == 2
    job = str(left.observed("a")[0].metadata["job/id"].value)
    CliRunner().invoke(main, ["jobs", "cancel", job, "--profile", left.profile])
    left.reported()
    assert len(left.runs(STATUS.CANCELED)) == 1


def test_python_waits(left: Left) -> None:
    compute = ComputeResource(project=str(left.project.root))
    with pytest.raises(DagsterSlurmError, match="can't be left"):
        compute.run(context=dg.build_asset_context(), payload_path="a.py", leave=True)  # type: ignore[call-arg]
    profile = left.project.root / "profiles" / f"{left.profile}.yaml"
    profile.write_text(f"{profile.read_text()}leave: true\n")
    resolved = ComputeResource(profile=left.profile).resolve({"payload": "payload.py"}, left.project.defs)
    assert not resolved.script.leave


@pytest.mark.slow
@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_what_a_left_job_used_is_drawn(left: Left) -> None:
    left.scripts("{args: [a], assets: [{key: a}]}")
    left.run()
    file = eventually(lambda: next(left.project.root.glob("**/usage/0.jsonl"), None), "it runs")
    eventually(lambda: file.read_bytes().count(b"\n") > 4, "its sampler looks at it a few times")
    left.open()
    left.reported()
    (made,) = left.made("a")
    assert isinstance(made.metadata["job/usage"], dg.MarkdownMetadataValue)
    assert isinstance(made.metadata["job/chart"], dg.MarkdownMetadataValue)


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_co2_by_the_profiles_figure_whether_it_is_left_or_followed(left: Left) -> None:
    used = '{"node": "n", "t": 1000.0, "cpus": 1, "gpus": [["GPU-0", "H100", 1]]}\n'
    used += '{"t": 5.0, "cpu": 1.0, "gpu": [[0.5, 1, 60.0, 30.0, 7200000.0]]}\n'
    left.project.profile(
        "local",
        "host: {type: local}\nscheduler: process\nsampler: false\ncost: {co2_g_per_kwh: 350}\n",
    )
    left.project.write("usage.jsonl", used)
    left.project.write(
        "uses.sh",
        'mkdir -p "$DAGSTER_SLURM_RUN_DIR/usage"; cp usage.jsonl "$DAGSTER_SLURM_RUN_DIR/usage/0.jsonl"\n',
    )
    more = "payload: uses.sh, files: [usage.jsonl]"
    left.scripts(f"{{{more}, assets: [{{key: a}}]}}", f"{{{more}, leave: false, assets: [{{key: b}}]}}")
    result = left.run()
    assert result.success, failure_text(result)
    left.reported()
    for key in ("a", "b"):
        (made,) = left.made(key)
        assert (made.metadata["job/energy_kwh"].value, made.metadata["job/co2_g"].value) == (2.0, 700.0)
