"""Whatever moment the process that evaluates the sensor is killed at, each result is stored once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import dagster as dg
import pytest
from left import killed
from left.conftest import SOON, Left
from waiting import eventually

STATUS = dg.DagsterRunStatus
MOST = 60
STEP = 1 if os.environ.get("DAGSTER_SLURM_LONG_TESTS") == "1" else 7
"""All moments take seven minutes: `make test-long`."""


def ticked(left: Left, kill_at: int | None) -> bool:
    """Evaluate the sensor in a process of its own; return whether it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["left.killed"])
    process = context.Process(
        target=killed.main, args=(str(left.project.root), left.instance.get_ref(), kill_at)
    )
    process.start()
    process.join(SOON)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def ended(left: Left) -> bool:
    statuses = [*(left.project.root / ".dagster-slurm").rglob("status")]
    return len(statuses) == 2 and all("exit=" in each.read_text() for each in statuses)


@pytest.mark.slow  # three processes for each moment
@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_each_result_is_stored_once(left: Left, tmp_path: Path) -> None:
    left.scripts(
        "{args: [good, good], assets: [{key: good}, {key: more, deps: [good]}], checks: [{name: ok, asset: good}]}",
        "{args: [bad, bad], assets: [{key: bad}], checks: [{name: ok, asset: bad}]}",
    )
    left.open("good", "bad", "fail-bad")
    assert left.run().success
    eventually(lambda: ended(left), "both jobs end", SOON)
    changing = [left.project.root / ".dagster-slurm", Path(left.instance.root_directory)]
    for number, folder in enumerate(changing):
        shutil.copytree(folder, tmp_path / f"before-{number}", symlinks=True)
    for moment in range(0, MOST, STEP):
        for number, folder in enumerate(changing):
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / f"before-{number}", folder, symlinks=True)
        reached = ticked(left, moment)
        if reached:
            ticked(left, moment)
            assert not ticked(left, None)
        assert once(left) == ONCE, f"killed at moment {moment}"
        if not reached:
            assert moment >= 20, "as many as there are changes, and as many again"
            return
    pytest.fail("it was always killed")


ONCE = {"good": 1, "more": 1, "bad": 0, "good ok": 1, "bad ok": 1, "failed": 1, "planned": 1, "open": 0}


def once(left: Left) -> dict[str, int]:
    """Return how often each result is there."""
    with dg.DagsterInstance.from_ref(left.instance.get_ref()) as fresh:
        seen = Left.__new__(Left)
        seen.__dict__.update({**left.__dict__, "instance": fresh})
        (failed,) = runs = seen.runs(STATUS.FAILURE)
        planned = fresh.all_logs(failed.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        made = {key: len(seen.made(key)) for key in ("good", "more", "bad")}
        checks = {f"{key} ok": len(seen.checks(key)) for key in ("good", "bad")}
        return {**made, **checks, "failed": len(runs), "planned": len(planned), "open": len(seen.states())}
