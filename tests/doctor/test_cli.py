"""`dg-slurm doctor` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_slurm_components.cli.main import main


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "profiles").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    return tmp_path


def test_the_local_profile_is_well(project: Path) -> None:
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.endswith("jobs can run\n")


def test_json(project: Path) -> None:
    shown = CliRunner().invoke(main, ["doctor", "--json"])
    report = json.loads(shown.output)
    assert report["ok"] is True
    assert report["findings"][0] == {
        "check": "profile",
        "verdict": "ok",
        "detail": "local (built in)",
        "advice": None,
    }
    assert {"reach", "login", "python", "workdir", "flock"} <= {each["check"] for each in report["findings"]}


def test_an_environment_without_its_lock_is_a_failure(project: Path) -> None:
    (project / "profiles" / "local.yaml").write_text("environment: {type: uv, project: software}\n")
    (project / "software").mkdir()
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 1
    told = " ".join(shown.output.split())
    assert "there is no uv.lock in" in told
    assert "run `uv lock` there" in told
    (project / "software" / "uv.lock").touch()
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 0


def test_a_failure_has_exit_status_1_and_advice(project: Path) -> None:
    (project / "profiles" / "local.yaml").write_text("workdir: /proc/dagster\n")
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 1
    assert "FAILED   workdir" in shown.output
    assert shown.output.endswith("1 failed\n")
    assert json.loads(CliRunner().invoke(main, ["doctor", "--json"]).output)["ok"] is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hosst: {type: local}\n", "did you mean `host`?"),
        (
            "host: {type: ssh, hostname: h, user: \"{{ env('NOBODY_SETS_THIS') }}\"}\n",
            "`NOBODY_SETS_THIS` is not set",
        ),
        ('host: "{{ cluster.host }}"\n', "dg-slurm cluster up"),
    ],
)
def test_a_wrong_profile_is_the_first_finding(
    project: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("DAGSTER_SLURM_CLUSTER", str(project / "no cluster"))
    (project / "profiles" / "production.yaml").write_text(text)
    shown = CliRunner().invoke(main, ["doctor", "--profile", "production"])
    assert shown.exit_code == 1
    assert "FAILED   profile" in shown.output
    assert message in shown.output
    assert "Traceback" not in shown.output


def test_an_unknown_profile(project: Path) -> None:
    shown = CliRunner().invoke(main, ["doctor", "--profile", "prodction"])
    assert shown.exit_code == 1
    assert "unknown profile `prodction`" in shown.output
