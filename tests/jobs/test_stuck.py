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
        (Stuck(), "DependencyNeverSatisfied", 3599, None),
        (Stuck(), "DependencyNeverSatisfied", 3600, "never starts (DependencyNeverSatisfied)"),
        (Stuck(never="1m"), "InvalidAccount", 60, "never starts (InvalidAccount)"),
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
    timer = StuckTimer(Stuck(held="1m"), clock=lambda: now[0])
    timer.check(waiting("JobHeldUser"))
    now[0] = 50
    assert timer.check(waiting("Resources")) is None
    now[0] = 70
    assert timer.check(waiting("JobHeldUser")) is None
    now[0] = 129
    assert timer.check(waiting("JobHeldUser")) is None
    now[0] = 130
    assert timer.check(waiting("JobHeldUser")) is not None


@pytest.mark.parametrize("reason", ["InvalidAccount", "InvalidQOS", "PartitionTimeLimit", "BadConstraints"])
def test_a_job_that_was_fit_to_run_does_not_lose_its_place_for_what_heals(reason: str) -> None:
    """slurmctld says InvalidAccount while it does not see slurmdbd, and takes it back by itself."""
    now = [0.0]
    timer = StuckTimer(Stuck(never="1m"), clock=lambda: now[0])
    assert timer.check(waiting("None")) is None
    assert timer.check(waiting("Priority")) is None
    for now[0] in (60.0, 10.0**6):
        assert timer.check(waiting(reason)) is None
    held = StuckTimer(Stuck(never="1m", held="1h"), clock=lambda: now[0])
    held.check(waiting("Priority"))
    held.check(waiting(reason))
    now[0] += 3600
    assert "`stuck.held` says" in str(held.check(waiting(reason)).hint)  # type: ignore[union-attr]


def test_a_dependency_that_failed_never_comes_back() -> None:
    now = [0.0]
    timer = StuckTimer(Stuck(never="1m"), clock=lambda: now[0])
    timer.check(waiting("Dependency"))
    timer.check(waiting("DependencyNeverSatisfied"))
    now[0] = 60
    assert timer.check(waiting("DependencyNeverSatisfied")) is not None
