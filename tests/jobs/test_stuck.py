"""The timer of jobs that waiting alone won't start."""

from __future__ import annotations

import pytest

from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.jobs.stuck import StuckTimer
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.spec.retry import Stuck


def waiting(reason: str | None) -> Observation:
    return Observation(state="PENDING", phase=Phase.WAITING, reason=reason)


@pytest.mark.parametrize(
    ("policy", "reason", "after", "told"),
    [
        (Stuck(), "DependencyNeverSatisfied", 59, None),
        (Stuck(), "DependencyNeverSatisfied", 60, "never starts (DependencyNeverSatisfied)"),
        (Stuck(), "JobHeldAdmin", 10**6, None),
        (Stuck(held="1h"), "JobHeldAdmin", 3600, "starts only when a person acts (JobHeldAdmin)"),
        (Stuck(held="1h"), "Priority", 10**6, None),
        (Stuck(), None, 10**6, None),
    ],
)
def test_only_what_time_does_not_heal_is_given_up(
    policy: Stuck, reason: str | None, after: float, told: str | None
) -> None:
    now = [0.0]
    timer = StuckTimer(policy, clock=lambda: now[0])
    assert timer.check(waiting(reason)) is None
    now[0] = after
    found = timer.check(waiting(reason))
    assert (found is None) == (told is None)
    assert told is None or told in str(found)


def test_time_counts_from_the_last_good_reason() -> None:
    now = [0.0]
    timer = StuckTimer(Stuck(), clock=lambda: now[0])
    timer.check(waiting("BadConstraints"))
    now[0] = 50
    assert timer.check(waiting("Resources")) is None
    now[0] = 70
    assert timer.check(waiting("BadConstraints")) is None
    now[0] = 129
    assert timer.check(waiting("BadConstraints")) is None
    now[0] = 130
    assert timer.check(waiting("BadConstraints")) is not None
