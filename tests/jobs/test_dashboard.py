"""The way to the dashboard of a job's Ray cluster, from each kind of host."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from dagster_slurm_components.jobs.dashboard import Dashboard, DashboardNotice, dashboard
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile

LOGIN = {"type": "ssh", "hostname": "login.example.org", "user": "ada"}
JOB = JobHandle("4711", "/w/runs/r/s/0")


def loaded(host: dict[str, Any], scheduler: str, name: str = "far") -> LoadedProfile:
    profile = Profile.model_validate({"host": host, "scheduler": scheduler, "workdir": "/w"})
    return LoadedProfile(name, profile, (), Path("/p"))


def way(
    host: dict[str, Any], scheduler: str, line: bytes = b"ray_dashboard=node7 30001\n", name: str = "far"
) -> Dashboard | None:
    return dashboard(parse_status(b"restart=0\n" + line), JOB, loaded(host, scheduler, name))


@pytest.mark.parametrize(
    ("host", "scheduler"), [({"type": "local"}, "slurm"), (LOGIN, "slurm"), (LOGIN, "process")]
)
def test_it_is_forwarded_to_this_machine(host: dict[str, Any], scheduler: str) -> None:
    found = way(host, scheduler)
    assert found
    assert found.tunnel == "dg-slurm forward 4711 8265:30001 --profile far"
    assert found.address == "http://127.0.0.1:8265"
    assert found.metadata == found.tunnel


def test_on_this_machine_it_takes_no_tunnel() -> None:
    found = way({"type": "local"}, "process")
    assert found == Dashboard("http://127.0.0.1:30001")
    assert found.metadata == "http://127.0.0.1:30001"


def test_it_is_said_with_the_tokens_file_and_not_the_token() -> None:
    found = way(LOGIN, "slurm")
    assert found
    assert found.in_words("/w/runs/r/s/0") == (
        "Ray's dashboard: run `dg-slurm forward 4711 8265:30001 --profile far` on your machine and open "
        "http://127.0.0.1:8265 (it asks for the token in /w/runs/r/s/0/ray.token)."
    )


@pytest.mark.parametrize(
    "line", [b"", b"ray_dashboard=\n", b"ray_dashboard=node7\n", b"ray_dashboard=node7 x\n"]
)
def test_a_job_without_a_dashboard_has_none(line: bytes) -> None:
    assert way(LOGIN, "slurm", line) is None


def test_before_the_job_runs_there_is_none() -> None:
    assert dashboard(None, JOB, loaded(LOGIN, "slurm")) is None


def test_a_profile_of_any_name_stays_one_word() -> None:
    found = way(LOGIN, "slurm", name="$(id);x")
    assert found
    assert shlex.split(found.tunnel)[-1] == "$(id);x"


def test_each_dashboard_is_told_once() -> None:
    told: list[str] = []
    notice = DashboardNotice(loaded({"type": "local"}, "process"), JOB, told.append)
    first = b"restart=0\nray_dashboard=here 30001\n"
    for status in (
        b"",
        first,
        first,
        first + b"restart=1\n",
        first + b"restart=1\nray_dashboard=here 30009\n",
    ):
        notice.look(parse_status(status))
    assert [text.split(" ")[3] for text in told] == ["http://127.0.0.1:30001", "http://127.0.0.1:30009"]
