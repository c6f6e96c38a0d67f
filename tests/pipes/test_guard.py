"""Who may go on following a job: how often Dagster is asked for that."""

from __future__ import annotations

import threading
from typing import Any, cast
from unittest.mock import Mock

import dagster as dg
import pytest

from dagster_slurm_components.pipes import guard
from dagster_slurm_components.pipes.guard import Guard, SupervisionLostError
from dagster_slurm_components.pipes.step import Step


def test_the_steps_of_a_process_share_a_look_at_their_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(guard, "_LOOKS", {})
    now = Mock(is_finished=False, status=dg.DagsterRunStatus.STARTED)
    instance = Mock(get_run_by_id=Mock(return_value=now))
    step = cast(Step, Mock(instance=instance, run_id="a", run=Mock(is_finished=False), step_worker=False))
    guards = [Guard(step, threading.Event()) for _ in range(3)]

    def look(**thoroughly: Any) -> int:
        for each in guards:
            each.check(**thoroughly)
        return int(instance.get_run_by_id.call_count)

    assert look() == 0  # it has just begun
    clock[0] += 31.0
    assert look() == 1
    clock[0] += 29.0
    assert look() == 1
    assert look(thoroughly=True) == 4
    now.is_finished, now.status = True, dg.DagsterRunStatus.CANCELED
    clock[0] += 2.0
    for each in guards:  # all of them, though one alone has asked
        with pytest.raises(SupervisionLostError, match="as CANCELED"):
            each.check()
    assert instance.get_run_by_id.call_count == 5
