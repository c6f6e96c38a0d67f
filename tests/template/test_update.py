"""A project made from an earlier version of the template takes over what has changed since."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import copier
import pytest
from template_fixture import template_copy

from dagster_slurm_components.spec.project import check_project

EARLIER, NOW = "v0.1.0", "v0.2.0"
ANSWERS = [
    {"workload": "python"},
    {"workload": "ray", "environment": "modules", "production_site": "leonardo", "staging_site": "other"},
]


def git(folder: Path, *argv: str) -> str:
    done = subprocess.run(["git", *argv], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, file
    file.write_text(text.replace(old, new))


def age(source: Path) -> None:
    """Make of the template what an earlier version could have been."""
    template = source / "template"
    replace(template / "README.md.jinja", "## Where things are", "## Folders")
    replace(template / "dagster_home" / "dagster.yaml.jinja", "  max_retries: 2\n", "  max_retries: 1\n")
    replace(template / "profiles" / "production.yaml.jinja", "on_shutdown: detach", "on_shutdown: cancel")
    replace(template / "pyproject.toml.jinja", '"pytest>=8",', '"pytest>=7",')
    (template / ".pre-commit-config.yaml").unlink()
    (template / "workloads" / "legacy.sh").write_text("echo this file is gone today\n")
    replace(source / "copier.yml", "default: docker://python:3.12-slim", "default: docker://python:3.11-slim")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template in a repository with two tags: an earlier version, and today's."""
    config = tmp_path / "gitconfig"
    config.write_text("[user]\nname = Ada\nemail = ada@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    source = template_copy(tmp_path / "template repository")
    today = template_copy(tmp_path / "today")
    age(source)
    git(source, "init", "-q")
    commit(source, "earlier")
    git(source, "tag", EARLIER)
    for old in ("template", "copier.yml"):
        git(source, "rm", "-r", "-q", old)
    for path in sorted(today.rglob("*")):
        target = source / path.relative_to(today)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(path.read_bytes())
    commit(source, "today")
    git(source, "tag", NOW)
    return source


def make(source: Path, folder: Path, version: str, answers: dict[str, str]) -> Path:
    copier.run_copy(str(source), folder, data=answers, defaults=True, quiet=True, vcs_ref=version)
    git(folder, "init", "-q")
    commit(folder, "made")
    return folder


def update(project: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copier.run_update(str(project), defaults=True, overwrite=True, quiet=True)


def files(folder: Path) -> dict[str, str]:
    found = git(folder, "ls-files", "--cached", "--others", "--exclude-standard").split("\n")
    return {name: (folder / name).read_text() for name in found if name and (folder / name).is_file()}


@pytest.mark.parametrize("answers", ANSWERS, ids=lambda answers: answers["workload"])
def test_an_untouched_project_becomes_a_fresh_one(
    repository: Path, tmp_path: Path, answers: dict[str, str]
) -> None:
    project = make(repository, tmp_path / "project", EARLIER, answers)
    assert (project / "workloads" / "legacy.sh").is_file()
    update(project)
    fresh = make(repository, tmp_path / "fresh" / "project", NOW, answers)  # the folder names the project
    assert files(project) == files(fresh)
    assert git(project, "status", "--short")


@pytest.mark.parametrize("answers", ANSWERS, ids=lambda answers: answers["workload"])
def test_local_edits_are_kept_without_a_conflict(
    repository: Path, tmp_path: Path, answers: dict[str, str]
) -> None:
    project = make(repository, tmp_path / "project", EARLIER, answers)
    (defs,) = project.rglob("defs.yaml")
    defs.write_text(defs.read_text() + "    - command: [date]\n      assets: [{key: mine}]\n")
    replace(project / "pyproject.toml", 'version = "0.1.0"', 'version = "0.3.1"')
    replace(project / "profiles" / "production.yaml", "max_submit_jobs: 100", "max_submit_jobs: 7")
    readme = project / "README.md"
    readme.write_text(readme.read_text() + "\n## Our group\n\nAsk Ada.\n")
    (project / "workloads" / "mine.sh").write_text("echo mine\n")
    commit(project, "our own work")

    update(project)

    now = files(project)
    assert not [name for name in now if name.endswith(".rej")]
    assert not [name for name, text in now.items() if "<<<<<<<" in text or ">>>>>>>" in text]
    assert git(project, "diff", "--name-only", "--diff-filter=U") == ""
    # What is ours:
    assert "key: mine" in defs.read_text()
    assert 'version = "0.3.1"' in now["pyproject.toml"]
    assert "max_submit_jobs: 7" in now["profiles/production.yaml"]
    assert "Ask Ada." in now["README.md"]
    assert now["workloads/mine.sh"] == "echo mine\n"
    # What is the template's:
    assert "## Where things are" in now["README.md"]
    assert '"pytest>=8",' in now["pyproject.toml"]
    assert "on_shutdown: detach" in now["profiles/production.yaml"]
    assert "max_retries: 2" in now["dagster_home/dagster.yaml"]
    assert ".pre-commit-config.yaml" in now
    assert "workloads/legacy.sh" not in now
    assert check_project([project]).problems == ()


def test_an_answer_that_was_given_is_kept(repository: Path, tmp_path: Path) -> None:
    given = {
        "production_hostname": "hpc.example.org",
        "production_account": "proj1",
        "environment": "modules",
    }
    project = make(repository, tmp_path / "project", EARLIER, given)
    update(project)
    text = (project / "profiles" / "production.yaml").read_text()
    assert 'hostname: "hpc.example.org"' in text
    assert 'account: "proj1"' in text


def test_the_package_is_updated_with_the_template(repository: Path, tmp_path: Path) -> None:
    address = f"file://{repository}/.git"
    project = make(repository / ".git", tmp_path / "project", EARLIER, {})
    pyproject = project / "pyproject.toml"
    assert f'{{git = "{address}", rev = "{EARLIER}"}}' in pyproject.read_text()
    env = project / ".env"
    env.write_text("DAGSTER_SLURM_PROFILE=staging\n")
    update(project)
    assert f'{{git = "{address}", rev = "{NOW}"}}' in pyproject.read_text()
    assert env.read_text() == "DAGSTER_SLURM_PROFILE=staging\n", "what a machine's own settings say is kept"
    assert not list(project.rglob("*.rej"))
