"""Whether a budget pays for a job, and how seldom Slurm is asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_slurm import FakeSlurm

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite.budget import spend
from dagster_slurm_components.hosts.satellite.calls import Budget as Queries
from dagster_slurm_components.jobs import schedulers
from dagster_slurm_components.jobs.budgets import budget_figures, budget_warning, hours_of
from dagster_slurm_components.jobs.schedulers import ProcessScheduler, SlurmScheduler
from dagster_slurm_components.slurm.shares import Budget, budgets
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.place import KeyPath, Position
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile
from dagster_slurm_components.spec.resolve import ResolvedScript, ScriptEntry, resolve_script
from dagster_slurm_components.spec.resources import Resources

ANSWER = "root|||cpu=60|cpu=0\n proj||cpu=600|cpu=60|cpu=0\n  proj|ada||cpu=60|cpu=0\n"
CORES = Budget("account `proj`", "cpu", 2.0, 10.0)
GPUS = Budget("account `top`", "gres/gpu", 0.0, 5.0)


@pytest.mark.parametrize(
    ("resources", "time", "jobs", "hours"),
    [
        ({}, "01:00:00", 1, {"node": 1, "cpu": 1}),
        ({"nodes": 2, "ntasks_per_node": 4, "cpus_per_task": 2}, "30", 1, {"node": 1, "cpu": 8}),
        ({"nodes": "2-4", "gpus_per_node": "a100:4"}, "60", 3, {"node": 6, "cpu": 6, "gres/gpu": 24}),
        ({"nodes": 2, "ntasks": 6, "gpus": 3}, "60", 1, {"node": 2, "cpu": 6, "gres/gpu": 3}),
        ({"nodes": 2}, None, 1, {}),
        ({"nodes": 2}, "UNLIMITED", 1, {}),
    ],
)
def test_what_a_job_may_take(
    resources: dict[str, object], time: str | None, jobs: int, hours: dict[str, float]
) -> None:
    assert hours_of(Resources.model_validate(resources), time, jobs) == hours


def test_the_figures() -> None:
    assert budget_figures((CORES, GPUS)) == {
        "job/budget_left_core_hours": 2.0,
        "job/budget_left_gpu_hours": 0.0,
    }


def script(folder: Path, **resources: Any) -> ResolvedScript:
    (folder / "a.sh").touch()

    def position(path: KeyPath) -> Position:
        return Position("a.yaml", 7 if path[-1] == "account" else 8, 5)

    layer = Layer("script", {"payload": "a.sh", "resources": resources}, position, folder)
    return resolve_script(ScriptEntry(layer, None, folder), LoadedProfile("staging", Profile(), (), folder))


def test_a_job_that_fits_is_not_warned_of(tmp_path: Path) -> None:
    assert budget_warning((CORES,), script(tmp_path, cpus_per_task=2, time="60")) is None
    assert budget_warning((CORES,), script(tmp_path, account="proj")) is None, "the partition says how long"
    assert budget_warning((), script(tmp_path, cpus_per_task=200, time="60")) is None


def test_one_that_does_not_names_the_lines(tmp_path: Path) -> None:
    resolved = script(tmp_path, account="proj", cpus_per_task=2, time="00:30:00")
    assert budget_warning((CORES,), resolved, jobs=3) == (
        "The budget may not pay for these 3 jobs: 2 of 10 core-hours are left to account `proj`, and they ask for 3."
        " Slurm lets such a job wait, or ends it when nothing is left. `account: proj` is written at a.yaml:7:5."
        " `time: 00:30:00` is written at a.yaml:8:5."
    )
    assert budget_warning((CORES,), resolved) is None
    longer = budget_warning((CORES,), resolved, time="02:00:00")
    assert longer is not None, "as for a retry with more time"
    assert "and it asks for 4." in longer


def test_what_is_used_up_pays_for_nothing(tmp_path: Path) -> None:
    text = budget_warning((CORES, GPUS), script(tmp_path, time="30"))
    assert text is not None
    assert "0 of 5 GPU-hours are left to account `top`." in text
    assert "core-hours" not in text


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    made = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{made.folder / 'bin'}:/usr/bin:/bin")
    return made


def test_all_jobs_of_all_processes_share_one_answer(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.answer("sshare", ANSWER)
    queries = Queries(f"{tmp_path}/queue/budget.json", 2, 10)
    here, there = (SlurmScheduler(f"{tmp_path}/queue", queries) for _ in range(2))
    satellite = Satellite(InProcessHost())
    assert budgets(here.shares(satellite), "proj") == (Budget("account `proj`", "cpu", 9.0, 10.0),)
    assert here.shares(Satellite(None)) is here.shares(satellite), "no call of the host"  # type: ignore[arg-type]
    assert there.shares(satellite) == here.shares(satellite)
    assert len(fake.calls("sshare")) == 1
    assert ProcessScheduler().shares(satellite) == ()


@pytest.mark.parametrize(
    ("out", "err", "code"),
    [
        ("", "sshare: error: You are not running a supported priority plugin\n(priority/basic).", 1),
        ("", "sshare: error: slurm_persist_conn_open: failed to send persistent connection init message", 0),
    ],
)
def test_where_it_fails_nothing_is_known_and_it_is_left_alone(
    fake: FakeSlurm, tmp_path: Path, out: str, err: str, code: int
) -> None:
    fake.answer("sshare", out, err=err, code=code)
    scheduler, satellite = SlurmScheduler(f"{tmp_path}/queue"), Satellite(InProcessHost())
    assert [scheduler.shares(satellite) for _ in range(3)] == [()] * 3
    assert SlurmScheduler(f"{tmp_path}/queue").shares(satellite) == ()
    assert len(fake.calls("sshare")) == 1


def test_where_there_is_none_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "sshare", lambda: ["no-such-program-anywhere"])
    assert SlurmScheduler(f"{tmp_path}/queue").shares(Satellite(InProcessHost())) == ()


def test_the_queue_keeps_its_queries(fake: FakeSlurm, tmp_path: Path) -> None:
    """A budget is only nice to know: it leaves half of the burst alone."""
    fake.answer("sshare", ANSWER)
    queries = Queries(f"{tmp_path}/queue/budget.json", 2, 10)
    while spend(queries, "queue", spare=True):
        pass
    assert SlurmScheduler(f"{tmp_path}/queue", queries).shares(Satellite(InProcessHost())) == ()
    assert fake.calls("sshare") == []
    assert spend(queries, "queue")
