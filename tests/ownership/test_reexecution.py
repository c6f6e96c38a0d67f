"""What a re-execution takes up, what it ends first, and what it runs anew."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from click.testing import CliRunner
from ownership.work import Work, everywhere

from dagster_slurm_components.cli.main import main

# Reports as many rows as stand in a file, and whether they are enough.
MODEL = """
import os
from pathlib import Path
from dagster_pipes import open_dagster_pipes

marks = Path(os.environ["MARKS"])
with open(marks / "trace", "a") as trace:
    trace.write("begin model\\n")
with open_dagster_pipes() as pipes:
    rows = int((marks / "rows").read_text())
    pipes.report_asset_materialization(asset_key="model", metadata={"rows": rows})
    pipes.report_asset_check(asset_key="model", check_name="enough", passed=rows > 10)
"""
CHECKED = """
@dg.asset
def raw(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ACT, args=["raw"]).get_results()


@dg.asset(deps=[raw], check_specs=[dg.AssetCheckSpec("enough", asset="model", blocking=True)])
def model(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ROOT / "model.py").get_results()
"""
CHECKED_SCRIPTS = """
    scripts:
      - {payload: act.sh, args: [raw], assets: [{key: raw}]}
      - payload: model.py
        assets: [{key: model, deps: [raw]}]
        checks: [{name: enough, asset: model, blocking: true}]
"""


@pytest.mark.parametrize("whole", [False, True], ids=["from failure", "all steps"])
@pytest.mark.parametrize("written", ["in Python", "in YAML"])
def test_d2_a_result_that_was_handed_over_is_never_handed_over_again(
    work: Work, whole: bool, written: str
) -> None:
    """A blocking check failed after the job did its work; then the data were repaired."""
    work.file("model.py", MODEL)
    if written == "in Python":
        work.assets(CHECKED)
    else:
        for name in ("act.sh", "model.py"):
            work.project.write(name, (work.project.root / name).read_text())
        work.project.scripts(CHECKED_SCRIPTS)
    work.open()
    (work.marks / "rows").write_text("1")
    run = work.begin()
    run.ends(dg.DagsterRunStatus.FAILURE)
    assert work.trace("begin") == {"raw": 1, "model": 1}

    (work.marks / "rows").write_text("100")
    again = work.begin(parent=run.id, whole=whole)
    again.ends()
    assert work.trace("begin") == {"raw": 2 if whole else 1, "model": 2}
    event = work.instance.get_latest_materialization_event(dg.AssetKey("model"))
    assert event is not None
    assert event.asset_materialization is not None
    assert (event.run_id, event.asset_materialization.metadata["rows"].value) == (again.id, 100)


CHAIN = """
@dg.asset
def raw(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ACT, args=["raw"]).get_results()


@dg.asset(deps=[raw])
def model(context: dg.AssetExecutionContext, compute: ComputeResource):
    yield from compute.run(context=context, payload_path=ACT, args=["model"]).get_results()
"""


def test_d2_a_job_that_is_older_than_its_inputs_is_not_taken_up(work: Work) -> None:
    """It reads what the first `raw` made; the re-execution of all steps makes another."""
    work.assets(CHAIN)
    work.open("raw")
    run = work.start()
    work.begins("model")
    old = work.live()
    assert len(old) == 1
    run.kill()
    work.instance.report_run_failed(work.run(run.id))
    again = work.begin(parent=run.id, whole=True)
    work.begins("model", 2)
    assert len(work.live()) == 1
    assert not work.live() & old
    work.open()
    again.ends()
    assert work.trace("end") == {"raw": 2, "model": 1}


WORD = """
@dg.asset
def a(context: dg.AssetExecutionContext, compute: ComputeResource):
    word = {"WORD": (ROOT / "word").read_text()}
    yield from compute.run(context=context, payload_path=ACT, args=["a"], extra_env=word).get_results()
"""


@everywhere
def test_d7_a_job_of_other_content_ends_before_the_new_one_begins(work: Work) -> None:
    work.assets(WORD)
    work.file("word", "first")
    run = work.start()
    work.begins("a")
    old = work.job()
    run.kill()
    work.instance.report_run_failed(work.run(run.id))
    work.file("word", "second")
    again = work.begin(parent=run.id)
    work.begins("a", 2)
    assert len(work.jobs()) == 2
    assert work.live() == set(work.jobs()) - {old}
    work.open()
    again.ends()
    assert work.trace("end") == {"a": 1}


def test_d7_a_rotated_secret_is_no_other_content(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.project.write("act.sh", work.act.read_text())
    work.project.scripts(
        """
        scripts:
          - {payload: act.sh, args: [a], env: {TOKEN: "{{ env('TOKEN_OF_TESTS') }}"}, assets: [{key: a}]}
        """
    )
    monkeypatch.setenv("TOKEN_OF_TESTS", "first")
    run = work.start()
    work.begins("a")
    job = work.job()
    run.kill()
    work.instance.report_run_failed(work.run(run.id))
    monkeypatch.setenv("TOKEN_OF_TESTS", "second")
    again = work.begin(parent=run.id)
    work.hears(again, f"Job {job} ")
    work.open()
    again.ends()
    assert work.trace("begin") == work.trace("end") == {"a": 1}


BROKEN = """
@dg.asset
def a(context: dg.AssetExecutionContext, compute: ComputeResource):
    completed = compute.run(context=context, payload_path=ACT, args=["a"])
    if (ROOT / "broken").exists():
        raise ValueError("a mistake in the asset's own code")
    yield from completed.get_results()
"""


def test_d31_results_are_collected_when_dagster_has_them_and_not_before(work: Work) -> None:
    """A mistake between the job's end and the results: they are still there for the next try."""
    work.assets(BROKEN)
    work.open()
    work.file("broken", "")
    run = work.begin()
    run.ends(dg.DagsterRunStatus.FAILURE)
    assert collected() == [False]
    (work.project.root / "broken").unlink()
    again = work.begin(parent=run.id)
    again.ends()
    assert work.trace("begin") == {"a": 1}
    assert collected() == [True]


def collected() -> list[bool]:
    """Return what `dg-slurm jobs` says of each job's results."""
    done = CliRunner().invoke(main, ["jobs", "list", "--all", "--json"])
    assert done.exit_code == 0, done.output
    return [job["collected"] for job in json.loads(done.stdout)]
