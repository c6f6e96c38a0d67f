"""Of two processes that evaluate the sensor one reports a job, whatever becomes of either."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from left.conftest import SOON, Left
from waiting import eventually

from dagster_slurm_components.jobs.owner import Owner


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this machine."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def ended(left: Left) -> Path:
    """The lease of a left job that has ended."""
    left.scripts("{args: [a, a], assets: [{key: a}], checks: [{name: ok, asset: a}]}")
    left.open()
    assert left.run().success
    (status,) = eventually(lambda: [*left.project.root.rglob("a/0/status")], "a status", SOON)
    eventually(lambda: "exit=" in status.read_text(), "the job ends", SOON)
    return status.with_name("lease")


def change(lease: Path, **changes: Any) -> None:
    lease.write_text(json.dumps({**json.loads(lease.read_text()), **changes}))


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_one_that_lives_is_left_alone_and_one_that_died_is_taken_over(
    left: Left, ended: Path, other: subprocess.Popen[bytes]
) -> None:
    owner = asdict(Owner.of(left.runs(dg.DagsterRunStatus.SUCCESS)[0].run_id, other.pid))
    change(ended, owner=owner, state="reporting", outcome="COMPLETED", finished=1.0, epoch=2)
    left.tick()
    assert (left.states(), left.made("a")) == (["reporting"], [])
    other.communicate(b"\n")
    left.tick()
    assert (left.states(), len(left.made("a")), len(left.checks("a"))) == ([], 1, 1)


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_one_of_which_nothing_is_known_is_taken_over_after_a_silence(left: Left, ended: Path) -> None:
    before = json.loads(ended.read_text())
    change(
        ended, owner={**before["owner"], "node": "elsewhere"}, state="reporting", outcome="COMPLETED", epoch=2
    )
    left.tick()
    assert left.states() == ["reporting"]
    change(ended, renewed=before["renewed"] - 200)
    left.tick()
    assert (left.states(), len(left.made("a"))) == ([], 1)


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_one_that_slept_for_too_long_stops(left: Left, ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it stores then, another may have stored as well."""
    from dagster_slurm_components.pipes.left import jobs as left_jobs  # noqa: PLC0415

    monkeypatch.setattr(left_jobs, "_SURE", -1.0)
    left.tick()
    assert (left.states(), left.made("a")) == (["reporting"], [])
    monkeypatch.undo()
    left.tick()
    assert (left.states(), len(left.made("a")), left.notes) == ([], 1, [])


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_a_record_that_is_damaged_is_told_of_once_and_keeps_no_other_from_being_reported(
    left: Left, ended: Path
) -> None:
    record = ended.with_name("left.json")
    whole = record.read_text()
    record.write_text("{")
    left.tick()
    left.tick()
    (note,) = left.notes
    assert "can't be reported: JSONDecodeError" in note
    record.write_text(whole)
    left.tick()
    assert (left.states(), len(left.made("a"))) == ([], 1)


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_jobs_of_another_dagster_instance_are_left_alone(left: Left, ended: Path, tmp_path: Path) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as another:
        another.add_run(dg.DagsterRun("job", tags={"slurm/left": "local"}))
        theirs = Left.__new__(Left)
        theirs.__dict__.update({**left.__dict__, "instance": another})
        theirs.tick()
        assert (theirs.states(), theirs.made("a")) == (["left"], [])
    left.tick()
    assert len(left.made("a")) == 1
