"""What real payloads report, and what Dagster has of it in the end; through the local profile."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from reports_fixture import (
    SHELL,
    again,
    checked,
    evaluations,
    log,
    made,
    materialized,
    messages,
    run_python,
    said,
    script,
    warnings,
)

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader

A = dg.AssetKey("a")


ODD = [
    "[" * 100_000,
    '{"method": "log", "params": {"message": ' + "[" * 100_000,
    '{"method": []}',
    '{"method": "closed", "params": "exception"}',
    '{"method": "closed", "params": ["exception"]}',
    '{"method": "closed", "params": 5}',
    '{"method": "report_asset_check", "params": ["a", "c"]}',
    '{"method": "of another protocol", "params": {}}',
    '{"method": "report_asset_materialization", "params": {"asset_key": ',
]


def test_h4_odd_lines_do_not_fail_a_step(project: Project, instance: dg.DagsterInstance) -> None:
    messages(project, said("opened"), *ODD, materialized("a", n=1))
    script(project, f"{SHELL}, assets: [{{key: a}}]")
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["n"].value == 1
    left_out = [text for text in warnings(instance, result) if "left out" in text]
    assert len(left_out) == len(ODD)


@pytest.mark.parametrize(
    "exception", ["boom", ["boom"], {"message": "boom"}, {"message": "boom", "stack": "x"}]
)
def test_h4_an_exception_of_any_shape_is_shown(
    project: Project, instance: dg.DagsterInstance, exception: object
) -> None:
    messages(project, said("opened"), said("closed", exception=exception), end="exit 3")
    script(project, f"{SHELL}, assets: [{{key: a}}]")
    result = project.run("local", instance=instance)
    text = failure_text(result)
    assert "boom" in text
    assert "The payload raised" in text


def test_reports_that_are_not_declared_and_reports_that_are_repeated(
    project: Project, instance: dg.DagsterInstance
) -> None:
    messages(
        project,
        materialized("foreign"),
        checked("a", "foreign", False),
        *(materialized("a", n=n) for n in (1, 2, 3)),
        *(checked("a", "c", ok) for ok in (False, True)),
    )
    script(project, f"{SHELL}, assets: [{{key: a}}], checks: [{{name: c, asset: a}}]")
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    (event,) = result.get_asset_materialization_events()
    assert (event.asset_key, event.materialization.metadata["n"].value) == (A, 3)
    assert evaluations(instance, result) == {"c": True}
    told = "\n".join(warnings(instance, result))
    for text in (
        "asset `foreign`",
        "check `foreign` of asset `a`",
        "asset `a` 3 times",
        "`c` of asset `a` 2 times",
    ):
        assert text in told


NAN = """
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        table = {"records": [{"loss": float("nan")}], "schema": [{"name": "loss", "type": "float"}]}
        pipes.report_asset_materialization(
            metadata={
                "loss": float("nan"),
                "curve": {"raw_value": {"loss": [1.0, float("-inf")]}, "type": "json"},
                "table": {"raw_value": table, "type": "table"},
            }
        )
"""


def test_numbers_that_are_not_finite_are_shown_as_text(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.write("payload.py", NAN)
    script(project, "payload: payload.py, assets: [{key: a}]")
    result = project.run("local", instance=instance)
    record = instance.get_latest_materialization_event(A)
    assert record is not None
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata
    assert metadata["loss"].value == "nan"
    assert metadata["curve"].value == {"loss": [1.0, "-inf"]}
    assert metadata["table"].records[0].data == {"loss": "nan"}
    (warning,) = warnings(instance, result)
    assert "numbers that are not finite, shown as text: `loss`, `curve`, `table`" in warning


FAILED_CHECK = (
    materialized("a"),
    checked("a", "c", False, rows=0),
)


def test_d24_a_check_result_outlives_the_payloads_failure(
    project: Project, instance: dg.DagsterInstance
) -> None:
    messages(project, *FAILED_CHECK, end="exit 1")
    script(project, f"{SHELL}, assets: [{{key: a}}], checks: [{{name: c, asset: a}}, {{name: d, asset: a}}]")
    result = project.run("local", instance=instance)
    assert not result.success
    assert made(result) == []
    records = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(A, "c"), limit=5)
    ((status, event),) = [(record.status.value, record.event) for record in records]
    assert status == "FAILED"
    assert event is not None
    assert event.asset_check_evaluation is not None
    assert event.asset_check_evaluation.metadata["rows"].value == 0
    assert "job/id" in event.asset_check_evaluation.metadata
    assert event.asset_check_evaluation.target_materialization_data is None


def test_d24_the_same_in_python(project: Project, instance: dg.DagsterInstance) -> None:
    messages(project, *FAILED_CHECK, end="exit 1")
    files = [str(project.defs / "lines.jsonl")]

    @dg.asset(check_specs=[dg.AssetCheckSpec("c", asset="a")])
    def a(context: dg.AssetExecutionContext, compute: ComputeResource) -> Iterator[Any]:
        command = ["bash", "-c", f'cat "{files[0]}" >>"$DAGSTER_SLURM_MESSAGES"; exit 1']
        yield from compute.run(context=context, command=command).get_results()

    result = run_python(project, instance, a)
    assert not result.success
    assert evaluations(instance, result) == {"c": False}


def test_d17_a_check_that_was_not_reported_is_named_with_its_line(
    project: Project, instance: dg.DagsterInstance
) -> None:
    messages(
        project,
        materialized("a"),
        checked("a", "c", True),
    )
    file = project.scripts(
        f"""
        scripts:
          - {SHELL.replace(", ", chr(10) + " " * 12)}
            name: trainer
            assets: [{{key: a}}]
            checks:
              - {{name: c, asset: a}}
              - {{name: forgotten, asset: a}}
            op: {{retry_policy: {{max_retries: 2}}}}
        """
    )
    result = project.run("local", instance=instance)
    text = failure_text(result)
    (number,) = [n for n, line in enumerate(file.read_text().splitlines(), 1) if "forgotten" in line]
    for part in ("`trainer`", "check `forgotten` of asset `a`", f"defs.yaml:{number}:", "Run directory: /"):
        assert part in text
    assert made(result) == ["a"]
    assert evaluations(instance, result) == {"c": True}
    assert not [each for each in result.all_events if each.event_type_value == "STEP_UP_FOR_RETRY"]


@pytest.mark.parametrize("lines", [[], [said("opened")], [said("log", message="hello", level="INFO")]])
def test_d30_a_payload_that_reports_nothing_is_no_warning(
    project: Project, instance: dg.DagsterInstance, lines: list[object]
) -> None:
    messages(project, *lines)
    script(project, f"{SHELL}, assets: [{{key: a}}]")
    result = project.run("local", instance=instance)
    assert made(result) == ["a"]
    assert warnings(instance, result) == []


def test_results_that_are_not_handed_on_are_an_error_that_says_so(
    project: Project, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def a(context: dg.AssetExecutionContext, compute: ComputeResource) -> None:
        compute.run(context=context, command=["true"])

    text = failure_text(run_python(project, instance, a))
    assert "yield from completed.get_results()" in text
    assert f"Run directory: {project.root}" in text


def test_after_an_unreported_check_the_re_execution_has_a_job_of_its_own(
    project: Project, instance: dg.DagsterInstance
) -> None:
    """What the payload reads was mended, which is no part of its content: the result is not taken up for ever."""
    report = json.dumps(checked("a", "ok", True))
    project.write(
        "payload.sh", f'cat "{project.root}"/report* >>"$DAGSTER_SLURM_MESSAGES" 2>/dev/null; true\n'
    )
    script(project, "payload: payload.sh, assets: [{key: a}], checks: [{name: ok, asset: a}]")
    failed = project.run("local", instance=instance)
    assert "did not report the check" in failure_text(failed)
    assert made(failed) == ["a"]
    (project.root / "report.jsonl").write_text(f"{report}\n")
    events = again(project, instance, failed)
    assert events[-1].event_type is dg.DagsterEventType.RUN_SUCCESS, [event.message for event in events]
    assert len(list(project.root.rglob("ledger"))) == 2


def test_what_the_log_says_is_in_the_order_in_which_it_happened(
    project: Project, instance: dg.DagsterInstance
) -> None:
    """The end of the job comes after all that its payload has said; a check leaves the job's figures to the asset."""
    messages(
        project,
        said("opened"),
        checked("a", "ok", True, mean=3.0),
        materialized("a", rows=1),
        said("log", message="the last words", level="INFO"),
    )
    script(project, f"{SHELL}, assets: [{{key: a}}], checks: [{{name: ok, asset: a}}]")
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    texts = log(instance, result).splitlines()
    (end,) = [place for place, text in enumerate(texts) if text.endswith(" ended: COMPLETED.")]
    assert texts.index("the last words") < end < texts.index("Materialized value a.")
    (check,) = result.get_asset_check_evaluations()
    assert set(check.metadata) == {"mean", "job/id", "job/run_directory"}
    (event,) = result.get_asset_materialization_events()
    assert {"rows", "job/state", "job/elapsed_s", "job/profile"} <= set(event.materialization.metadata)


def test_an_error_of_this_process_leaves_the_job_and_a_re_execution_takes_it_up(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages(project, materialized("a", n=1), end=f'while [ ! -e "{project.root}/go" ]; do sleep 0.1; done')
    script(project, f"{SHELL}, assets: [{{key: a}}]")
    with monkeypatch.context() as broken:

        def feed(reader: RunDirectoryMessageReader, data: bytes) -> None:
            raise RuntimeError("something that nobody thought of")

        broken.setattr(RunDirectoryMessageReader, "feed", feed)
        failed = project.run("local", instance=instance)
    assert "something that nobody thought of" in failure_text(failed)
    said = log(instance, failed)
    assert "This step ends; job " in said
    assert " goes on." in said
    (project.root / "go").touch()
    events = again(project, instance, failed)
    assert events[-1].event_type is dg.DagsterEventType.RUN_SUCCESS, [event.message for event in events]
    assert len(list(project.root.rglob("ledger"))) == 1
