"""`dg-slurm init profile` writes what is right, whatever the site."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.spec.profiles import known_sites, load_profile
from dagster_slurm_components.spec.project import check_project


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DAGSTER_SLURM_PROFILE", "DAGSTER_SLURM_PROFILES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HPC_USER", "ada")
    monkeypatch.setenv("HPC_ACCOUNT", "proj1")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def init(*args: str, succeeds: bool = True) -> str:
    done = CliRunner().invoke(main, ["init", "profile", *args])
    assert (done.exit_code == 0) == succeeds, done.output
    return done.output


def site_names() -> list[str]:
    return list(known_sites(Path(__file__).parent))


@pytest.mark.parametrize("site", site_names())
def test_every_shipped_site(folder, site):
    init("production", "--site", site)
    assert not check_project([folder]).problems
    loaded = load_profile("production", start=folder)
    assert (loaded.profile.host.type, loaded.profile.scheduler) == ("ssh", "slurm")
    assert loaded.profile.host.user == "ada"
    assert loaded.profile.pool == "production"
    text = (folder / "profiles" / "production.yaml").read_text()
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize(
    ("golden", "name", "args"),
    [
        ("leonardo", "p", ("--site", "leonardo")),
        ("here", "here", ()),
        ("slurm-here", "yes", ("--scheduler", "slurm")),
    ],
)
def test_text_is_the_golden_one(folder, golden, name, args):
    init(name, *args)
    file = Path(__file__).parent / "golden" / f"profile-{golden}.yaml"
    assert (folder / "profiles" / f"{name}.yaml").read_text() == file.read_text()


def test_this_machine(folder):
    init("here")
    profile = load_profile("here", start=folder).profile
    assert (profile.host.type, profile.scheduler) == ("local", "process")
    assert profile.workdir == str(folder / ".dagster-slurm")


def test_what_was_said_holds(folder):
    init(
        "ws",
        "--hostname",
        "w.example.org",
        "--user",
        "it's",
        "--scheduler",
        "process",
        "--workdir",
        "/data/x y",
    )
    profile = load_profile("ws", start=folder).profile
    assert (profile.host.hostname, profile.host.user) == ("w.example.org", "it's")
    assert (profile.scheduler, profile.workdir) == ("process", "/data/x y")


def test_nothing_is_written_over(folder):
    init("here")
    file = folder / "profiles" / "here.yaml"
    file.write_text("scheduler: slurm\n")
    assert "there is such a profile" in init("here", succeeds=False)
    assert file.read_text() == "scheduler: slurm\n"
    init("here", "--force")
    assert "scheduler: process" in file.read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("a b",), "can't be the name"),
        (("../up",), "can't be the name"),
        (("x", "--site", "leonard"), "did you mean `leonardo`?"),
        (("x", "--hostname", "h", "--workdir", "relative"), "must be absolute"),
    ],
)
def test_errors_leave_nothing_behind(folder, args, message):
    assert message in init(*args, succeeds=False)
    assert not list(folder.glob("profiles/*.yaml"))
