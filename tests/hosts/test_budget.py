"""The budget of Slurm queries is one for all processes on all machines."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from satellite_fixture import FakeSlurm, bundle

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite import budget as budgets
from dagster_slurm_components.hosts.satellite import queries
from dagster_slurm_components.hosts.satellite.budget import may_ask, spend
from dagster_slurm_components.hosts.satellite.calls import (
    AccountingQuery,
    Budget,
    Completed,
    JobLimit,
    QueueQuery,
)
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.slurm.queue import LIVE


@pytest.mark.parametrize(
    ("tokens", "waited", "granted"),
    [
        (10.0, 0.0, True),
        (2.0, 0.0, True),
        (1.9, 0.0, False),  # the last one is the other's
        (1.9, 59.0, False),
        (1.0, 60.0, True),  # unless this one was left out for as long as half the budget takes
        (0.9, 1e9, False),
    ],
)
def test_f15_each_kind_leaves_the_last_query_to_the_other(
    tokens: float, waited: float, granted: bool
) -> None:
    assert may_ask(tokens, waited, Budget("", 2, 10)) is granted


@pytest.mark.parametrize(("tokens", "burst", "granted"), [(5, 10, True), (4.9, 10, False), (1.9, 2, False)])
def test_what_is_only_nice_to_know_leaves_half_of_the_burst(
    tokens: float, burst: float, granted: bool
) -> None:
    assert may_ask(tokens, 1e9, Budget("", 2, burst), spare=True) is granted


@pytest.mark.parametrize(("burst", "both"), [(1, False), (1, True), (10, False), (10, True)])
def test_none_starves_the_other_and_together_they_keep_the_budget(burst: int, both: bool) -> None:
    """An hour in which the queue, and perhaps a failing accounting, are wanted each second, by hundreds."""
    budget, tokens, made = Budget("", 2, burst), float(burst), {"queue": [-1e9], "accounting": [-1e9]}
    for now in range(1, 3601):
        tokens = min(burst, tokens + 2 / 60)
        for kind in ("accounting", "queue") if both else ("queue",):
            if may_ask(tokens + 1e-9, now - made[kind][-1], budget):
                tokens -= 1
                made[kind].append(now)
    gaps = [later - earlier for earlier, later in pairwise(made["queue"])]
    assert sum(map(len, made.values())) <= 2 + burst + 120
    assert max(gaps[1:]) <= (60 if both or burst == 1 else 30) + 1
    if both:
        assert max(later - earlier for earlier, later in pairwise(made["accounting"][1:])) <= 61


def test_f15_what_is_used_up_is_refused_and_shared_answers_are_free(
    satellite: Satellite, tmp_path: Path
) -> None:
    budget = Budget(f"{tmp_path}/queue/budget.json", 2, 4)
    counted = tmp_path / "counted"
    query = ["/bin/sh", "-c", f"echo x >>'{counted}'; echo answer"]
    for _ in range(3):
        shot = satellite.snapshot(QueueQuery(f"{tmp_path}/shot", query, max_age=0, budget=budget))
        assert shot.stdout == "answer\n"
    for _ in range(5):
        assert not satellite.snapshot(QueueQuery(f"{tmp_path}/shot", query, max_age=60, budget=budget)).fresh
    late = satellite.snapshot(QueueQuery(f"{tmp_path}/shot", query, max_age=0, budget=budget))
    assert (late.stdout, late.fresh) == ("answer\n", False), "what is known is told, as old as it is"
    assert late.age > 0
    with pytest.raises(SatelliteError) as caught:
        satellite.snapshot(QueueQuery(f"{tmp_path}/another", query, max_age=0, budget=budget))
    assert caught.value.code == "over_budget"
    assert counted.read_text() == "x\n" * 3
    assert satellite.run(["true"]).returncode == 0, "what is not metered goes on"


def test_f15_many_at_once_take_no_more_than_there_is(satellite: Satellite, tmp_path: Path) -> None:
    budget = Budget(f"{tmp_path}/budget.json", 2, 10)

    def ask(number: int) -> bool:
        query = QueueQuery(f"{tmp_path}/{number}", ["true"], max_age=0, budget=budget)
        try:
            return satellite.snapshot(query).fresh
        except SatelliteError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(40))) == 9, "and leave one to the accounting"


def test_who_waited_for_anothers_query_takes_its_answer(satellite: Satellite, tmp_path: Path) -> None:
    """A dozen steps that began in the same second asked one after the other."""
    query = QueueQuery(f"{tmp_path}/shot", ["sleep", "0.3"], max_age=0)
    with ThreadPoolExecutor(8) as pool:
        shots = list(pool.map(lambda _: satellite.snapshot(query), range(8)))
    assert sum(shot.fresh for shot in shots) <= 2, (
        "that of who was first, and one more for who came while it ran"
    )
    assert {shot.age for shot in shots} == {0.0}


@pytest.mark.parametrize("processes", [4, 20])
def test_many_processes_each_hear_of_the_queue_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """An hour of steps that are a process each, with what production says: they starved each other for up to 53 min."""
    now, asked = [1e9], []
    clock = SimpleNamespace(time=lambda: now[0])
    monkeypatch.setattr(queries, "time", clock)
    monkeypatch.setattr(budgets, "time", clock)

    def ask(argv: Sequence[str], timeout: float) -> tuple[float, Completed]:
        asked.append(now[0])
        return now[0], Completed(0, b"", b"")

    monkeypatch.setattr(queries, "_ask", ask)
    shared = Budget(f"{tmp_path}/budget.json", 2, 10)
    query = QueueQuery(f"{tmp_path}/squeue.json", ("squeue",), SlurmScheduler.max_age, budget=shared)
    ages = []
    for moment in range(360 * processes):
        now[0] = 1e9 + moment * SlurmScheduler.look / processes
        ages.append(queries.snapshot(**query._asdict())["age"])
    assert max(ages) <= SlurmScheduler.max_age + SlurmScheduler.look
    assert len(asked) <= 66, "and half of the budget is left for what just happened"


@pytest.mark.parametrize(("away", "granted"), [(60, 1), (56, 0), (-3600, 0), (10**6, 9)])
def test_it_refills_with_time_and_a_clock_set_back_refills_nothing(
    tmp_path: Path, away: float, granted: int
) -> None:
    path = tmp_path / "budget.json"
    path.write_text(json.dumps([0.0, time.time() - away, {"queue": time.time()}]))
    budget = Budget(str(path), 2, 10)
    assert sum(spend(budget, "queue") for _ in range(12)) == granted


class Sacct:
    """An accounting that counts its calls, knows the jobs in a file, and fails where there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program, self.known, self.called = folder / "sacct", folder / "known", folder / "called"
        self.program.write_text(
            f'#!/bin/sh\necho "$*" >>"{self.called}"\n[ -e "{self.known}" ] || exit 1\n'
            f'for id in $(echo "${{1#--jobs=}}" | tr , " "); do grep "^$id[_.|]" "{self.known}"; done; true\n'
        )
        self.program.chmod(0o755)

    def query(self, jobs: dict[str, float], *, burst: float = 10, spare: bool = False) -> AccountingQuery:
        budget = Budget(f"{self.folder}/budget.json", 2, burst)
        wanted = list(jobs.items())
        return AccountingQuery(
            f"{self.folder}/sacct.json", [str(self.program)], wanted, 3, budget=budget, spare=spare
        )

    @property
    def calls(self) -> list[str]:
        return self.called.read_text().splitlines() if self.called.exists() else []


@pytest.fixture
def sacct(tmp_path: Path) -> Sacct:
    made = Sacct(tmp_path)
    made.known.write_text("7|TIMEOUT\n7.batch|CANCELLED\n8_1|COMPLETED\n")
    return made


def test_an_answer_of_the_accounting_is_everybodys(satellite: Satellite, sacct: Sacct) -> None:
    first = satellite.accounting(sacct.query({"7": 5.0, "9": 5.0}))
    assert {job: text for job, (_, text) in first.answers.items()} == {
        "7": "7|TIMEOUT\n7.batch|CANCELLED",
        "9": "",
    }
    again = satellite.accounting(sacct.query({"7": 60.0}))
    assert (again.answers["7"][1], again.fresh) == (first.answers["7"][1], False)
    assert sacct.calls == ["--jobs=7,9"]


def test_whoever_may_ask_asks_for_all_who_wait(satellite: Satellite, sacct: Sacct) -> None:
    """20 jobs of 20 processes that end in the same minute are one query, not 20."""
    satellite.accounting(sacct.query({"1": 5.0}, burst=1))
    for job in ("7", "8_1", "9"):
        refused = satellite.accounting(sacct.query({job: 5.0}, burst=1))
        assert (refused.answers, refused.fresh) == ({}, False)
    told = satellite.accounting(sacct.query({"9": 5.0}))
    assert told.fresh is False, "the budget is the same"
    (sacct.folder / "budget.json").unlink()
    assert satellite.accounting(sacct.query({"9": 5.0})).fresh
    assert sacct.calls == ["--jobs=1", "--jobs=9,7,8_1"]
    for job, text in (("7", "7|TIMEOUT\n7.batch|CANCELLED"), ("8_1", "8_1|COMPLETED")):
        found = satellite.accounting(sacct.query({job: 5.0}))
        assert (found.answers[job][1], found.fresh) == (text, False)


def test_the_lines_of_an_array_s_tasks_are_those_of_the_array(satellite: Satellite, sacct: Sacct) -> None:
    sacct.known.write_text("5_1|COMPLETED\n5_1.batch|COMPLETED\n5_[2-9%2]|PENDING\n57|FAILED\n")
    told = satellite.accounting(sacct.query({"5": 5.0}))
    assert told.answers["5"][1].splitlines() == ["5_1|COMPLETED", "5_1.batch|COMPLETED", "5_[2-9%2]|PENDING"]


def test_f20_an_accounting_that_fails_is_left_alone_by_all(satellite: Satellite, sacct: Sacct) -> None:
    sacct.known.unlink()
    for job in ("7", "8", "9"):
        told = satellite.accounting(sacct.query({job: 5.0}))
        assert told.answers == {}
        assert told.failed_age < 10
    assert sacct.calls == ["--jobs=7"]
    board = sacct.folder / "sacct.json"
    for waited, calls in ((16, 1), (21, 2), (36, 2), (41, 3)):
        kept = json.loads(board.read_text())
        board.write_text(json.dumps({**kept, "failed": time.time() - waited}))
        satellite.accounting(sacct.query({"7": 5.0}))
        assert len(sacct.calls) == calls
    kept = json.loads(board.read_text())
    board.write_text(json.dumps({**kept, "failed": 1.0}))
    sacct.known.write_text("7|FAILED\n")
    assert satellite.accounting(sacct.query({"7": 5.0})).answers["7"][1] == "7|FAILED"
    assert json.loads(board.read_text())["failures"] == 0


def test_a_board_that_was_cut_by_a_full_disk_is_begun_anew(satellite: Satellite, sacct: Sacct) -> None:
    (sacct.folder / "sacct.json").write_text("{")
    assert satellite.accounting(sacct.query({"7": 5.0})).fresh


def test_who_follows_jobs_divides_a_ceiling(satellite: Satellite, tmp_path: Path) -> None:
    path = f"{tmp_path}/queue/readers.json"
    assert satellite.share(path, "a", 30) == 1.0
    assert satellite.share(path, "b", 10) == 0.25
    assert satellite.share(path, "a", 10) == 0.5
    noted = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**noted, "b": [time.time() - 61, 10]}))
    assert satellite.share(path, "a", 10) == 1.0, "who is not heard of has gone"


def test_files_that_a_crash_has_emptied_count_as_none(
    satellite: Satellite, slurm: FakeSlurm, workdir: Path, tmp_path: Path
) -> None:
    """A rename reaches a disk before the content may."""
    folder = workdir / "queue"
    folder.mkdir(parents=True, mode=0o700)
    budget = Budget(f"{folder}/budget.json", 2, 4)
    query = QueueQuery(f"{folder}/squeue.json", (slurm.squeue,), 60.0, 20.0, budget=budget)
    limit = JobLimit(3, f"{folder}/submitted.json", 120.0, query, LIVE)
    sacct = AccountingQuery(f"{folder}/sacct.json", ["echo"], [("1", 0.0)], 3, budget=budget)
    for name in ("squeue", "submitted", "budget", "sacct", "readers"):
        (folder / f"{name}.json").touch()
    assert satellite.snapshot(query).fresh
    assert satellite.accounting(sacct).fresh
    assert satellite.share(f"{folder}/readers.json", "me", 1.0) == 1.0
    (folder / "submitted.json").touch()
    reply = satellite.submit(slurm.request(workdir, limit=limit), bundle({"job.sh": ""}))
    assert reply.outcome == "submitted"
