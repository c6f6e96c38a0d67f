"""Which run directories go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.jobs.lease import (
    COLLECTED,
    ENDED,
    FOLLOWING,
    LEFT,
    REPORTING,
    Lease,
    LedgerRecord,
)
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import LOST, Evidence, Observation
from dagster_slurm_components.jobs.records import RunDirectory
from dagster_slurm_components.jobs.retention import inputs_of_jobs, judge_folders, paths_to_remove
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.spec.profile import Retention

DAY = 86400.0
NOW = 1000 * DAY
KEEP = Retention(success="0d", failure="14d")


def folder(name: str, *, days: float, lease: str = FOLLOWING) -> RunDirectory:
    changed = NOW - days * DAY
    return RunDirectory(
        path=f"/w/runs/run/step/{name}",
        run_id="run",
        step="step",
        partition=None,
        call=0,
        attempt=int(name),
        ledger=LedgerRecord("token", "12", changed),
        status=None,
        lease=Lease(epoch=1, state=lease),
        touched=changed,
    )


def seen(state: str, phase: Phase = Phase.TERMINAL) -> JobInfo:
    observation = Observation(state=state, phase=phase)
    return JobInfo(JobHandle("12", "/w"), observation, Evidence())


@pytest.mark.parametrize(
    ("what", "days", "lease", "goes"),
    [
        (seen("COMPLETED"), 1, COLLECTED, True),
        (seen("COMPLETED"), 0.01, COLLECTED, False),
        (seen("COMPLETED"), 1, FOLLOWING, False),
        (seen("COMPLETED"), 1, ENDED, False),
        (seen("COMPLETED"), 15, ENDED, True),
        (seen("FAILED"), 13, COLLECTED, False),
        (seen("FAILED"), 15, COLLECTED, True),
        (seen("FAILED"), 15, ENDED, True),
        (seen("COMPLETED"), 400, LEFT, False),
        (seen("FAILED"), 400, REPORTING, False),
        (seen("RUNNING", Phase.RUNNING), 400, FOLLOWING, False),
        (seen("PENDING", Phase.WAITING), 400, FOLLOWING, False),
        (seen(LOST), 1, COLLECTED, False),
        (None, 1, FOLLOWING, False),
        (None, 15, FOLLOWING, True),
    ],
)
def test_only_what_is_over_and_old_enough_goes(
    what: JobInfo | None, days: float, lease: str, goes: bool
) -> None:
    (verdict,) = judge_folders([(folder("0", days=days, lease=lease), what)], KEEP, NOW)
    assert verdict.remove is goes


def test_what_living_jobs_read_stays() -> None:
    made, over = folder("0", days=400), seen("FAILED")
    for path, goes in (
        (f"{made.path}/payload/out", False),
        (f"{made.path}0/payload", True),
        ("/data/x", True),
    ):
        (verdict,) = judge_folders([(made, over)], KEEP, NOW, [path])
        assert verdict.remove is goes
    assert judge_folders([(made, over)], KEEP, NOW, [f"{made.path}/x"])[0].why.endswith("reads what it made")


def test_the_checkpoint_and_the_lock_go_with_the_last_attempt() -> None:
    over, live = seen("FAILED"), seen("RUNNING", Phase.RUNNING)
    first, second = folder("0", days=20), folder("1", days=20)
    both = judge_folders([(first, over), (second, over)], KEEP, NOW)
    step = "/w/runs/run/step"
    assert set(paths_to_remove(both)) == {
        f"{step}/{name}" for name in ("0", "1", "checkpoint", "checkpoint-0", "checkpoint-1", ".lock")
    }
    one = judge_folders([(first, over), (second, live)], KEEP, NOW)
    assert paths_to_remove(one) == [f"{step}/0", f"{step}/checkpoint-0"]


def test_each_call_has_a_checkpoint_of_its_own() -> None:
    over, live = seen("FAILED"), seen("RUNNING", Phase.RUNNING)
    step = "/w/runs/run/step"
    call = replace(folder("0", days=20), path=f"{step}/call=1/0", call=1)
    judged = judge_folders([(folder("0", days=20), live), (call, over)], KEEP, NOW)
    assert set(paths_to_remove(judged)) == {
        f"{step}/call=1/{name}" for name in ("0", "checkpoint", "checkpoint-0", ".lock")
    }


def test_a_payload_may_have_files_called_as_ours(tmp_path: Path) -> None:
    payload = tmp_path / "0" / "payload"
    payload.mkdir(parents=True)
    (payload / "inputs.json").write_text("[1, 2")
    (tmp_path / "0" / "inputs.json").write_text('{"table": {"path": "/w/table"}}')
    assert inputs_of_jobs(Satellite(InProcessHost()), [str(tmp_path / "0")]) == ["/w/table"]
