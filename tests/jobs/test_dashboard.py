"""The way to the dashboard of a job's Ray cluster, from each kind of host."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from dagster_slurm_components.jobs.dashboard import Dashboard, DashboardNotice, dashboard
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.spec.profile import Profile

LOGIN = {"type": "ssh", "hostname": "login.example.org", "user": "ada"}


def way(
    host: dict[str, Any], scheduler: str, line: bytes = b"ray_dashboard=node7 30001\n"
) -> Dashboard | None:
    profile = Profile.model_validate({"host": host, "scheduler": scheduler, "workdir": "/w"})
    return dashboard(parse_status(b"restart=0\n" + line), profile)


@pytest.mark.parametrize(
    ("host", "scheduler", "expected"),
    [
        ({"type": "local"}, "slurm", "node7"),
        (LOGIN, "slurm", "-J ada@login.example.org:22 ada@node7"),
        (
            LOGIN | {"port": 2222, "jump": ["bastion.example.org", "bob@inner:23"]},
            "slurm",
            "-J bastion.example.org:22,bob@inner:23,ada@login.example.org:2222 ada@node7",
        ),
        ({"type": "ssh", "hostname": "2001:db8::1"}, "slurm", "-J '[2001:db8::1]:22' node7"),
        (LOGIN | {"key_file": "~/my key"}, "process", "-i '~/my key' -p 22 ada@login.example.org"),
        (LOGIN | {"jump": ["bastion"]}, "process", "-J bastion:22 -p 22 ada@login.example.org"),
    ],
)
def test_the_tunnel_ends_at_the_heads_loopback(host: dict[str, Any], scheduler: str, expected: str) -> None:
    found = way(host, scheduler)
    assert found
    assert found.tunnel == f"ssh -N -L 8265:127.0.0.1:30001 {expected}"
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
        "Ray's dashboard: run `ssh -N -L 8265:127.0.0.1:30001 -J ada@login.example.org:22 ada@node7` on your "
        "machine and open http://127.0.0.1:8265 (it asks for the token in /w/runs/r/s/0/ray.token)."
    )


@pytest.mark.parametrize(
    "line", [b"", b"ray_dashboard=\n", b"ray_dashboard=node7\n", b"ray_dashboard=node7 x\n"]
)
def test_a_job_without_a_dashboard_has_none(line: bytes) -> None:
    assert way(LOGIN, "slurm", line) is None


def test_before_the_job_runs_there_is_none() -> None:
    profile = Profile.model_validate({"host": LOGIN, "scheduler": "slurm", "workdir": "/w"})
    assert dashboard(None, profile) is None


def test_a_hostile_node_name_stays_one_word() -> None:
    found = way(LOGIN, "slurm", b"ray_dashboard=$(id);x 30001\n")
    assert found
    assert shlex.split(found.tunnel)[-1] == "ada@$(id);x"


def test_each_dashboard_is_told_once() -> None:
    told: list[str] = []
    profile = Profile.model_validate({"host": {"type": "local"}, "scheduler": "process", "workdir": "/w"})
    notice = DashboardNotice(profile, "/w/run", told.append)
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
