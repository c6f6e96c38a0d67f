"""A range of partitions as a job array: one submission; each partition with its own end, results and metadata."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from ownership.work import SOON, Run, Work, everywhere
from waiting import eventually

from dagster_slurm_components.cli.main import main

STATUS = dg.DagsterRunStatus
KEYS = ["a", "b b", "c/d", "it's", "e", "f"]
SCRIPTS = """
type: dagster_slurm_components.SlurmScriptComponent
attributes:
  scripts:
    - payload: {payload}
      args: ["{{{{ partition_key }}}}"]
      env: {{KEY: "{{{{ partition_key }}}}"}}
      array: {array}
      assets:
        - key: parts
          partitions_def: {{type: static, partition_keys: {keys}}}
      checks: {checks}
      op: {{backfill_policy: {{type: single_run}}}}
    - command: [bash, -c, 'printf "after %s\\n" "$DAGSTER_SLURM_PARTITION_RANGE_END" >>"$MARKS/after"']
      assets:
        - key: after
          deps: [parts]
          partitions_def: {{type: static, partition_keys: {keys}}}
      op: {{backfill_policy: {{type: single_run}}}}
"""
REPORT = """
import os
import subprocess
import sys

from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    code = subprocess.call(["bash", {act!r}, sys.argv[1]])
    pipes.report_asset_check("short", passed=len(pipes.partition_key) < 3, severity="WARN")
    pipes.log.info("hello")
    pipes.report_asset_materialization(
        {{"key": pipes.partition_key, "same": os.environ["KEY"] == pipes.partition_key == sys.argv[1]}}
    )
    print("done")
sys.exit(code)
"""


def scripts(
    work: Work, payload: Path, *, array: str = "{}", checks: str = "[]", keys: Sequence[str] = KEYS
) -> None:
    text = SCRIPTS.format(payload=payload, array=array, checks=checks, keys=list(keys))
    (work.project.defs / "defs.yaml").write_text(text)


def ranged(keys: Sequence[str] = KEYS) -> Mapping[str, str]:
    """The tags of a run over all keys."""
    return {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}


def made(work: Work, *runs: Run, asset: str = "parts") -> Counter[str]:
    """Return how often each partition was materialized."""
    found: Counter[str] = Counter()
    for run in runs:
        for entry in work.instance.all_logs(run.id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.dagster_event
            if event is not None and event.asset_key == dg.AssetKey(asset) and event.partition is not None:
                found[event.partition] += 1
    return found


def once(keys: Sequence[str]) -> Counter[str]:
    return Counter(dict.fromkeys(keys, 1))


@everywhere
def test_each_partition_is_materialized_once_with_its_own_metadata(work: Work, profile: str) -> None:
    payload = work.file("report.py", REPORT.format(act=str(work.act)))
    scripts(work, payload, checks="[{name: short, asset: parts}]", array="{max_parallel: 4}")
    work.open()
    run = work.start(tags=ranged())
    run.ends()
    assert made(work, run) == once(KEYS), work.said(run.id)
    assert made(work, run, asset="after") == once(KEYS)
    assert (work.marks / "after").read_text() == "after f\n"
    assert len(work.jobs()) == 2
    for entry in work.instance.all_logs(run.id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.dagster_event
        if event is None or event.asset_key != dg.AssetKey("parts"):
            continue
        materialization = event.step_materialization_data.materialization
        metadata = {name: value.value for name, value in materialization.metadata.items()}
        assert (metadata["key"], metadata["same"]) == (event.partition, True)
        assert metadata["job/state"] == "COMPLETED"
        assert f"/elements/{KEYS.index(str(event.partition))}" in metadata["job/run_directory"]
        assert materialization.tags is not None
        assert "dagster/data_version" in materialization.tags
    said = work.said(run.id)
    assert all(f"[{key}] hello" in said for key in KEYS)
    (check,) = run_checks(work, run)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    failed = check.metadata["partitions/failed"].value
    assert failed == [key for key in KEYS if len(key) >= 3]


def jobs(work: Work, *words: str, status: int = 0) -> str:
    """Return what `dg-slurm jobs` prints in the project."""
    here = Path.cwd()
    os.chdir(work.project.root)
    try:
        done = CliRunner().invoke(main, ["jobs", *words, "--profile", work.profile])
    finally:
        os.chdir(here)
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def run_checks(work: Work, run: Run) -> list[dg.AssetCheckEvaluation]:
    entries = work.instance.all_logs(run.id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [entry.dagster_event.asset_check_evaluation_data for entry in entries if entry.dagster_event]


@everywhere
def test_a_re_execution_runs_the_partitions_that_failed_and_no_others(work: Work, profile: str) -> None:
    scripts(work, work.act)
    work.open()
    bad = ["b b", "e"]
    for name in bad:
        (work.marks / f"fail.{name}").touch()
    run = work.start(tags=ranged())
    run.ends(STATUS.FAILURE)
    good = [key for key in KEYS if key not in bad]
    assert made(work, run) == once(good), work.said(run.id)
    said = work.said(run.id)
    assert '2 of 6 partitions failed: "b b", "e"' in said
    shown = jobs(work, "show", f"{work.job()}_1")
    assert "FAILED" in shown
    assert "exit code 3" in shown
    assert jobs(work, "logs", f"{work.job()}_0") == ""
    assert f"elements: {work.job()}_[0-5]\n" in jobs(work, "show", work.job())
    told = jobs(work, "logs", work.job(), status=1)
    assert f"{work.job()} is an array: name one of {work.job()}_[0-5], as {work.job()}_0" in told
    for name in bad:
        (work.marks / f"fail.{name}").unlink()
    again = work.start(parent=run.id, tags=ranged())
    again.ends()
    assert made(work, run, again) == once(KEYS), work.said(again.id)
    assert work.trace("begin") == Counter({**dict.fromkeys(good, 1), **dict.fromkeys(bad, 2)})
    # Whoever re-executes a step that has succeeded wants all of it anew.
    whole = work.start(parent=again.id, whole=True, tags=ranged())
    whole.ends()
    assert made(work, whole) == once(KEYS)


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("profile", ["staging"])
def test_an_element_that_hangs_is_ended_alone(work: Work, profile: str) -> None:
    scripts(work, work.file("hang.sh", 'if [ "$1" = e ]; then sleep 3600; fi'))
    file = work.project.defs / "defs.yaml"
    file.write_text(file.read_text().replace("array:", "idle: {warn: 8s, action: cancel}\n      array:", 1))
    run = work.start(tags=ranged())
    run.ends(STATUS.FAILURE)
    assert made(work, run) == once([key for key in KEYS if key != "e"])
    said = work.said(run.id)
    assert f"Partition e: Job {work.job()}_4 has written nothing for 00:00:" in said
    assert f"Element {work.job()}_4 was cancelled: `idle.action: cancel`." in said
    assert '1 of 6 partitions failed: "e"' in said
    why = rf"The job was cancelled.*\. Partition e: Job {work.job()}_4 has written nothing .* It was cancelled: "
    assert re.search(why + r"`idle\.action: cancel` is written at .*defs\.yaml:\d+:\d+\.", said), said


@everywhere
def test_a_killed_worker_loses_nothing_and_reports_nothing_twice(work: Work, profile: str) -> None:
    scripts(work, work.act)
    work.open("a", "e")
    run = work.start(tags=ranged())
    eventually(lambda: made(work, run)["a"], "the first is stored", SOON)
    run.kill()
    work.instance.report_run_failed(work.run(run.id))
    work.open()
    again = work.start(parent=run.id, tags=ranged())
    again.ends()
    assert made(work, run, again) == once(KEYS), work.said(again.id)
    assert work.trace("begin") == once(KEYS)


@everywhere
def test_terminating_the_run_ends_the_array(work: Work, profile: str) -> None:
    scripts(work, work.act)
    run = work.start(tags=ranged())
    work.begins("a")
    work.terminate(run)
    assert not work.trace("end")


def test_several_partitions_share_a_task(work: Work) -> None:
    scripts(work, work.act, array="{keys_per_task: 4}")
    work.open()
    (work.marks / "fail.b b").touch()
    run = work.start(tags=ranged())
    run.ends(STATUS.FAILURE)
    assert made(work, run) == once([key for key in KEYS if key != "b b"]), work.said(run.id)
    assert os.listdir(next(work.workdir.glob("runs/*/parts/*/0/elements")))


@everywhere
def test_the_sensor_ends_the_array_of_a_cancelled_run(work: Work, profile: str) -> None:
    scripts(work, work.act)
    run = work.start(tags=ranged())
    work.begins("a")
    run.kill()
    work.instance.report_run_canceled(work.run(run.id))
    sensor = work.sensor()

    def over() -> bool:
        sensor.tick()
        return not work.live()

    eventually(over, "the array is gone", SOON)
    assert not work.trace("end")


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("profile", ["staging"])
def test_one_element_requeued_and_one_cancelled_are_told_apart(work: Work, profile: str) -> None:
    scripts(work, work.act)
    run = work.start(tags=ranged())
    for key in KEYS:
        work.begins(key)
    assert work.cluster is not None
    array = work.job()
    work.cluster.run(["scontrol", "requeue", f"{array}_{KEYS.index('e')}"])
    work.cluster.run(["scancel", f"{array}_{KEYS.index('f')}"])
    work.open()
    work.begins("e", times=2)
    run.ends(STATUS.FAILURE)
    assert made(work, run) == once([key for key in KEYS if key != "f"]), work.said(run.id)
    said = work.said(run.id)
    assert '1 of 6 partitions failed: "f"' in said
    assert "cancelled" in said.lower()
