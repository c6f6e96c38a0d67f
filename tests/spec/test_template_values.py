"""`{{ profile.* }}` in scripts and `{{ cluster.* }}` in profiles."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from project_fixture import Project

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.component.project import project_scripts
from dagster_slurm_components.spec.hosts import SshHost
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import load_profile, profile_values
from dagster_slurm_components.spec.templates import render


@pytest.fixture(autouse=True)
def no_chosen_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    monkeypatch.delenv("DAGSTER_SLURM_PROFILES_DIR", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "production.yaml").write_text(
        "site: lab\n"
        "host: {type: ssh, hostname: login.example.org, user: \"{{ env('NOBODY_SETS_THIS') }}\"}\n"
        "scheduler: slurm\n"
        "workdir: /scratch/work\n"
        'env: {DATA_DIR: "{{ project_root }}/data", N: 3}\n'
    )
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "lab.yaml").write_text("env: {FROM_SITE: yes sir, N: 1}\n")
    return tmp_path


def rendered(text: str, folder: Path, name: str | None = None) -> object:
    return render(text, lambda path: None, scope={"profile": profile_values(name, start=folder)})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ profile.name }}", "production"),
        ("{{ profile.workdir }}/x", "/scratch/work/x"),
        ("{{ profile.env.FROM_SITE }}", "yes sir"),
        ("{{ profile.env.N }}", 3),
        ("{{ profile.env.get('NOT_THERE', 'else') }}", "else"),
        ("{{ profile.scheduler }}", "slurm"),
        ("{{ profile.limits.queries_per_minute }}", 2.0),
    ],
)
def test_values_of_the_profile(folder: Path, text: str, value: object) -> None:
    """No variable of the rest of the profile is needed: `user` can't be rendered here."""
    assert rendered(text, folder, "production") == value


def test_templates_of_the_profile_are_rendered(folder: Path) -> None:
    assert rendered("{{ profile.env.DATA_DIR }}", folder, "production") == f"{folder}/data"


def test_the_built_in_local_profile_has_values_too(folder: Path) -> None:
    assert rendered("{{ profile.name }} {{ profile.workdir }}", folder) == f"local {folder}/.dagster-slurm"


def test_the_variable_chooses_the_profile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "production")
    assert rendered("{{ profile.name }}", folder) == "production"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ profile.env.DATA_DIRR }}", "`profile.env` has no `DATA_DIRR`; did you mean `DATA_DIR`?"),
        ("{{ profile.enw }}", "`profile` has no `enw`; did you mean `env`?"),
        ("{{ profile.host.user }}", "the environment variable `NOBODY_SETS_THIS` is not set"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        rendered(text, folder, "production")
    assert message in str(error.value)


def test_an_unknown_profile_is_told(folder: Path) -> None:
    with pytest.raises(SpecError, match="did you mean `production`"):
        rendered("{{ profile.name }}", folder, "prodction")


def test_a_mapping_as_a_whole(folder: Path) -> None:
    assert rendered("{{ profile.env }}", folder, "production") == {
        "FROM_SITE": "yes sir",
        "N": 3,
        "DATA_DIR": f"{folder}/data",
    }


def test_the_test_cluster_of_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = folder / "cluster"
    cluster.mkdir()
    (cluster / "profile.yaml").write_text(
        'host: {type: ssh, hostname: "127.0.0.1", port: 17000, user: ada}\nscheduler: slurm\nworkdir: /c/work\n'
    )
    monkeypatch.setenv("DAGSTER_SLURM_CLUSTER", str(cluster))
    (folder / "profiles" / "staging.yaml").write_text(
        'host: "{{ cluster.host }}"\nscheduler: slurm\nworkdir: "{{ cluster.workdir }}/mine"\n'
    )
    profile = load_profile("staging", start=folder).profile
    assert isinstance(profile.host, SshHost)
    assert profile.host.port == 17000
    assert profile.workdir == "/c/work/mine"
    (cluster / "profile.yaml").unlink()
    with pytest.raises(SpecError, match="start one by `dg-slurm cluster up`"):
        load_profile("staging", start=folder)


def test_a_script_in_two_profiles(project: Project, instance: dg.DagsterInstance) -> None:
    """The same YAML gets each profile's own value."""
    project.profile("local", "env: {DATA_DIR: /local/data}\n")
    project.profile("other", "env: {DATA_DIR: /other/data}\n")
    project.write(
        "tell.py",
        """
        import sys
        from dagster_pipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pipes.report_asset_materialization(metadata={"folder": sys.argv[1]})
        """,
    )
    project.scripts(
        """
        scripts:
          - payload: tell.py
            args: ["{{ profile.env.DATA_DIR }}/digits"]
            assets: [{key: told}]
        """
    )
    for profile in ("local", "other"):
        result = project.run(profile, instance=instance)
        assert result.success
        (event,) = result.get_asset_materialization_events()
        assert event.materialization.metadata["folder"].value == f"/{profile}/data/digits"
    assert "DAGSTER_SLURM_PROFILE" not in os.environ


def test_a_wrong_name_in_a_script_is_told_with_its_line(project: Project) -> None:
    project.profile("local", "env: {DATA_DIR: /local/data}\n")
    file = project.scripts(
        """
        scripts:
          - command: [ls, "{{ profile.env.DATA_DRI }}"]
            assets: [{key: told}]
        """
    )
    with pytest.raises(Exception, match="Error while loading") as error, project.definitions():
        pass
    told: BaseException | None = error.value
    while told is not None and f"{file}:5:" not in str(told):
        told = told.__cause__
    assert "did you mean `DATA_DIR`?" in str(told)


def test_all_scripts_of_a_project_in_a_profile_that_is_not_chosen(project: Project) -> None:
    """What `dg-slurm env` deploys for a profile has that profile's values."""
    project.profile("other", "env: {DATA_DIR: /other/data}\n")
    project.scripts(
        """
        scripts:
          - command: [ls, "{{ profile.env.DATA_DIR }}"]
            assets: [{key: told}]
        """
    )
    (script,) = project_scripts(project.root, "other")
    resolved = script.entry.resolve(load_profile("other", start=project.root))
    assert resolved.script.command == ["ls", "/other/data"]


def test_what_would_be_submitted_in_a_profile_that_is_not_chosen(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.profile("other", "env: {DATA_DIR: /other/data}\n")
    project.scripts(
        """
        scripts:
          - command: [ls, "{{ profile.env.DATA_DIR }}"]
            assets: [{key: told}]
        """
    )
    monkeypatch.chdir(project.root)
    shown = CliRunner().invoke(main, ["render", "told", "--profile", "other", "--json"])
    assert shown.exit_code == 0, shown.output
    assert "/other/data" in shown.output
    assert "DAGSTER_SLURM_PROFILE" not in os.environ
