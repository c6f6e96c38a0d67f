"""Which run directories go."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.look import LedgerRecord, Seen
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.reconcile import LOST, Evidence, Observation
from dagster_slurm_components.jobs.records import RunDirectory
from dagster_slurm_components.jobs.retention import Keep, judge_folders, paths_to_remove
from dagster_slurm_components.jobs.shown import Shown
from dagster_slurm_components.slurm.states import Phase

DAY = 86400.0
NOW = 1000 * DAY
KEEP = Keep(success=0.0, failure=14 * DAY)


def folder(name: str, *, days: float, delivered: bool = False) -> RunDirectory:
    ledger = LedgerRecord("token", "12", NOW - days * DAY)
    shown = Shown(delivered=delivered)
    path = f"/w/runs/run/step/{name}"
    return RunDirectory(path, "run", "step", None, int(name), ledger, None, shown, NOW - days * DAY)


def seen(state: str, phase: Phase = Phase.TERMINAL) -> Seen:
    observation = Observation(state=state, phase=phase)
    return Seen(JobHandle("12", "/w", "token"), observation, None, Evidence())


@pytest.mark.parametrize(
    ("what", "days", "delivered", "goes"),
    [
        (seen("COMPLETED"), 1, True, True),
        (seen("COMPLETED"), 0.01, True, False),
        (seen("COMPLETED"), 1, False, False),
        (seen("COMPLETED"), 15, False, True),
        (seen("FAILED"), 13, True, False),
        (seen("FAILED"), 15, True, True),
        (seen("RUNNING", Phase.RUNNING), 400, False, False),
        (seen("PENDING", Phase.WAITING), 400, False, False),
        (seen(LOST), 1, True, False),
        (None, 1, False, False),
        (None, 15, False, True),
    ],
)
def test_only_what_is_over_and_old_enough_goes(
    what: Seen | None, days: float, delivered: bool, goes: bool
) -> None:
    (verdict,) = judge_folders([(folder("0", days=days, delivered=delivered), what)], KEEP, NOW)
    assert verdict.remove is goes


def test_the_checkpoint_goes_with_the_last_attempt() -> None:
    over, live = seen("FAILED"), seen("RUNNING", Phase.RUNNING)
    first, second = folder("0", days=20), folder("1", days=20)
    both = judge_folders([(first, over), (second, over)], KEEP, NOW)
    assert "/w/runs/run/step/checkpoint" in paths_to_remove(both)
    one = judge_folders([(first, over), (second, live)], KEEP, NOW)
    assert paths_to_remove(one) == ["/w/runs/run/step/0", "/w/runs/run/step/0.lock"]
