"""Profiles, sites, included scripts and .env run commands: they are looked for in the project, and are its owner's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.spec.component import read_component
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import (
    PROFILE_VARIABLE,
    PROFILES_DIR_VARIABLE,
    load_profile,
    project_folder,
)
from dagster_slurm_components.spec.source import load_documents

NOBODY = 65534
two_users = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a profile, a site and an included script, below a folder where somebody laid profiles, too."""
    for name in (PROFILE_VARIABLE, PROFILES_DIR_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "scratch" / "ada" / "project"
    (root / "defs" / "jobs").mkdir(parents=True)
    (root / "dg.toml").touch()
    for folder, workdir in ((root, "/own"), (root.parent.parent, "/theirs")):
        (folder / "profiles").mkdir()
        (folder / "profiles" / "local.yaml").write_text(f"site: lab\nworkdir: {workdir}\n")
        (folder / "sites").mkdir()
        (folder / "sites" / "lab.yaml").write_text("description: Lab\n")
    (root / "defs" / "defs.yaml").write_text("include: [jobs/*.yaml]\n")
    (root / "defs" / "jobs" / "a.yaml").write_text("command: [hostname]\n")
    (root / ".env").write_text("SAID=yes\n")
    return root


def without_profiles(project: Path) -> None:
    (project / "profiles" / "local.yaml").unlink()


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ("dg.toml", ""),
        (".git", ""),
        ("pyproject.toml", "[tool.dg]\n"),
        ("pyproject.toml", "[tool.dagster]\n"),
    ],
)
def test_f53_no_profile_above_the_projects_root_is_used(project: Path, mark: str, text: str) -> None:
    (project / "dg.toml").unlink()
    (project / mark).write_text(text)
    assert load_profile(start=project / "defs").profile.workdir == "/own"
    without_profiles(project)
    assert load_profile(start=project / "defs").file is None
    with pytest.raises(SpecError, match="unknown profile `staging`"):
        load_profile("staging", start=project / "defs")


def test_the_project_of_a_payloads_software_is_not_the_root(project: Path) -> None:
    (project / "defs" / "pyproject.toml").write_text("[project]\nname = 'software'\nversion = '0'\n")
    assert load_profile(start=project / "defs" / "jobs").profile.workdir == "/own"


def test_without_a_root_the_search_ends_below_a_folder_for_everybody(project: Path) -> None:
    (project / "dg.toml").unlink()
    without_profiles(project)
    scratch = project.parent.parent
    (scratch / "pyproject.toml").touch()
    assert load_profile(start=project / "defs").profile.workdir == "/theirs"
    assert project_folder(project) == scratch
    for folder in (project, project.parent, scratch):  # as in some containers
        folder.chmod(0o777)
    assert load_profile(start=project / "defs").profile.workdir == "/theirs"
    scratch.chmod(0o1777)
    assert load_profile(start=project / "defs").file is None
    assert project_folder(project) == project


@two_users
def test_without_a_root_the_search_ends_below_a_folder_of_another_user(project: Path) -> None:
    (project / "dg.toml").unlink()
    without_profiles(project)
    os.chown(project.parent.parent, NOBODY, -1)
    assert load_profile(start=project / "defs").file is None


def include(project: Path) -> None:
    spec = read_component(load_documents(project / "defs" / "defs.yaml")[0])
    if spec.problems:
        raise SpecError(spec.problems)


READ: dict[str, Callable[[Path], object]] = {
    "profiles/local.yaml": lambda project: load_profile(start=project),
    "sites/lab.yaml": lambda project: load_profile(start=project),
    "defs/jobs/a.yaml": include,
}


@pytest.mark.parametrize("name", READ)
def test_a_file_that_everybody_may_write_is_refused(project: Path, name: str) -> None:
    READ[name](project)
    (project / name).chmod(0o666)
    with pytest.raises(
        SpecError, match=f"{name} is not read(.|\n)*everybody may write to it(.|\n)*chmod o-w"
    ):
        READ[name](project)
    for folder in (project, project / "defs"):  # as on a mount that gives all the same mode
        folder.chmod(0o777)
    READ[name](project)


@two_users
@pytest.mark.parametrize("name", READ)
def test_f53_a_file_of_another_user_is_refused(project: Path, name: str) -> None:
    os.chown(project / name, NOBODY, -1)
    with pytest.raises(SpecError, match=f"{name} is not read(.|\n)*belongs to user {NOBODY}"):
        READ[name](project)
    for folder in (project, project / "defs"):  # as in a container, where root reads the user's outside
        os.chown(folder, NOBODY, -1)
    READ[name](project)


def test_dot_env_is_no_others(project: Path) -> None:
    run = ["--project", str(project), "sites", "list"]
    assert CliRunner().invoke(main, run).exit_code == 0
    (project / ".env").chmod(0o602)
    done = CliRunner().invoke(main, run)
    assert done.exit_code != 0
    assert ".env is not read" in done.output
