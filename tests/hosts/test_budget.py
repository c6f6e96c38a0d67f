"""The budget of Slurm queries is one for all processes on all machines."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import Budget, QueueQuery


def test_f15_what_is_used_up_is_refused_and_shared_answers_are_free(
    satellite: Satellite, tmp_path: Path
) -> None:
    budget = Budget(f"{tmp_path}/queue/budget.json", 2, 3)
    counted = tmp_path / "counted"
    query = ["/bin/sh", "-c", f"echo x >>'{counted}'; echo answer"]
    for _ in range(3):
        shot = satellite.snapshot(QueueQuery(f"{tmp_path}/shot", query, max_age=0, budget=budget))
        assert shot.stdout == "answer\n"
    for _ in range(5):
        assert not satellite.snapshot(QueueQuery(f"{tmp_path}/shot", query, max_age=60, budget=budget)).fresh
    with pytest.raises(SatelliteError) as caught:
        satellite.snapshot(QueueQuery(f"{tmp_path}/shot", query, max_age=0, budget=budget))
    assert caught.value.code == "over_budget"
    with pytest.raises(SatelliteError, match="used up"):
        satellite.run(["true"], budget=budget)
    assert counted.read_text() == "x\n" * 3
    assert satellite.run(["true"]).returncode == 0, "what is not metered goes on"


def test_f15_many_at_once_take_no_more_than_there_is(satellite: Satellite, tmp_path: Path) -> None:
    budget = Budget(f"{tmp_path}/budget.json", 2, 10)

    def ask(number: int) -> bool:
        try:
            satellite.run(["true"], budget=budget)
        except SatelliteError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(40))) == 10


@pytest.mark.parametrize(("away", "granted"), [(30, 1), (29, 0), (-3600, 0), (10**6, 10)])
def test_it_refills_with_time_and_a_clock_set_back_refills_nothing(
    local: Satellite, tmp_path: Path, away: float, granted: int
) -> None:
    path = tmp_path / "budget.json"
    path.write_text(json.dumps([0.0, time.time() - away]))
    budget = Budget(str(path), 2, 10)
    taken = 0
    for _ in range(12):
        try:
            local.run(["true"], budget=budget)
        except SatelliteError:
            break
        taken += 1
    assert taken == granted
