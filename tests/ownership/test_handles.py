"""Several jobs of one step at a time: `submit` and its handles, and `map` over items."""

# Without `from __future__ import annotations`: Dagster reads the types of these assets' arguments as they are.

import re

import dagster as dg
import pytest
from ownership.work import SOON, Work, everywhere
from waiting import eventually

from dagster_slurm_components import ComputeResource


def test_handles_of_jobs_that_run_side_by_side(work: Work, compute: ComputeResource) -> None:
    @dg.asset
    def several(context: dg.AssetExecutionContext, compute: ComputeResource):
        jobs = [compute.submit(context=context, payload_path=work.act, args=[name]) for name in "abc"]
        for name in "abc":
            work.begins(name)  # all gates are shut: nobody has waited for anything
        eventually(lambda: [job.state for job in jobs] == ["RUNNING"] * 3, "their states", SOON)
        assert sorted(job.job_id for job in jobs) == work.jobs()

        jobs[1].cancel()
        with pytest.raises(dg.Failure, match="cancelled"):
            jobs[1].result()
        assert jobs[1].state.startswith("CANCELLED")
        assert work.live() == {jobs[0].job_id, jobs[2].job_id}

        work.open()
        for job in (jobs[2], jobs[0]):
            assert job.result().metadata["job/id"].value == job.job_id
            assert job.state == "COMPLETED"
        return dg.MaterializeResult()

    assert dg.materialize([several], resources={"compute": compute}, instance=work.instance).success
    assert work.trace("end") == {"a": 1, "c": 1}


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("profile", ["staging"])
def test_a_handle_tells_that_slurm_lets_its_job_wait(work: Work, compute: ComputeResource) -> None:
    @dg.asset
    def waits(context: dg.AssetExecutionContext, compute: ComputeResource):
        later = {"begin": "now+1hour"}
        job = compute.submit(context=context, payload_path=work.act, args=["a"], resources=later)
        eventually(lambda: job.state == "PENDING", "it is pending", SOON)
        assert work.live() == {job.job_id}
        job.cancel()
        with pytest.raises(dg.Failure, match="cancelled"):
            job.result()
        assert work.live() == set()
        return dg.MaterializeResult()

    assert dg.materialize([waits], resources={"compute": compute}, instance=work.instance).success
    assert work.trace("begin") == {}


# Says which item it has, by Pipes and by the variable. The first two wait for each other.
ITEM = """
import json, os, sys, time
from pathlib import Path
from dagster_pipes import open_dagster_pipes

marks = Path(os.environ["MARKS"])

def note(event, item):
    with open(marks / "trace", "a") as trace:
        trace.write(f"{event} {item}\\n")

with open_dagster_pipes() as pipes:
    item, index = pipes.get_extra("item"), pipes.get_extra("index")
    assert json.loads(os.environ["DAGSTER_SLURM_ITEM"]) == item, os.environ["DAGSTER_SLURM_ITEM"]
    assert item["text"] == "ü \\n 'x'"
    note("begin", item["name"])
    (marks / f"came.{index}").touch()
    deadline = time.monotonic() + 300
    while index < 2 and not (marks / f"came.{1 - index}").exists():
        assert time.monotonic() < deadline, "it runs alone"
        time.sleep(0.02)
    failed = (marks / f"fail.{item['name']}").exists()
    note("end", item["name"])
    if failed:
        sys.exit(3)
    pipes.report_custom_message([index, item["name"]])
"""
MAPPED = """
@dg.asset
def mapped(context: dg.AssetExecutionContext, compute: ComputeResource):
    items = [{"name": name, "text": "ü \\n 'x'"} for name in ("one", "two", "three", "four", "five")]
    done = compute.map(context=context, payload_path=ROOT / "item.py", items=items, max_parallel=2)
    told = [message for each in done for message in each.get_custom_messages()]
    return dg.MaterializeResult(metadata={"told": dg.MetadataValue.json(told)})
"""
NAMES = ["one", "two", "three", "four", "five"]


@everywhere
def test_map_runs_each_item_and_a_retry_only_those_that_failed(work: Work, profile: str) -> None:
    work.file("item.py", ITEM)
    work.assets(MAPPED)
    for name in ("two", "four"):
        (work.marks / f"fail.{name}").touch()
    run = work.begin()
    run.ends(dg.DagsterRunStatus.FAILURE)
    assert work.trace("end") == dict.fromkeys(NAMES, 1), work.said(run.id)
    assert most_at_once(work) == 2
    (failed,) = [entry for entry in work.instance.all_logs(run.id) if entry.step_key and is_failure(entry)]
    said = str(failed.dagster_event.step_failure_data.user_failure_data.description)
    for index, name in enumerate(NAMES):
        named = re.search(rf"\b{index}\b.*\b{name}\b", said)
        assert bool(named) == (name in ("two", "four")), said

    for name in ("two", "four"):
        (work.marks / f"fail.{name}").unlink()
    again = work.begin(parent=run.id)
    again.ends()
    assert work.trace("end") == {"one": 1, "two": 2, "three": 1, "four": 2, "five": 1}
    event = work.instance.get_latest_materialization_event(dg.AssetKey("mapped"))
    assert event is not None
    assert event.asset_materialization is not None
    told = event.asset_materialization.metadata["told"].value
    assert told == [[index, name] for index, name in enumerate(NAMES)]
    # On Slurm an array, and then one of those that were left.
    assert len(work.jobs()) == (2 if profile == "staging" else len(NAMES) + 2)


def is_failure(entry: dg.EventLogEntry) -> bool:
    return entry.dagster_event is not None and entry.dagster_event.is_step_failure


def most_at_once(work: Work) -> int:
    """Return the most payloads that ran at a time, by their trace."""
    running = most = 0
    for line in (work.marks / "trace").read_text().splitlines():
        running += 1 if line.startswith("begin ") else -1
        most = max(most, running)
    return most
