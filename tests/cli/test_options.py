"""How a project and a profile are named: `.env` as `dg` reads it, `--project`, and a profile in two ways."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dagster_slurm_components.cli.main import COMMANDS, LazyGroup, main
from dagster_slurm_components.spec.profiles import PROFILE_VARIABLE


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three profiles of this machine, each with a working folder of its own."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "profiles").mkdir()
    for name in ("local", "leo", "vsc"):
        (tmp_path / "profiles" / f"{name}.yaml").write_text(
            f"host: {{type: local}}\nscheduler: process\nworkdir: work-{name}\n"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path


def dg_slurm(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def looked_at(*words: str) -> str:
    """Return the profile that doctor examined."""
    done = dg_slurm(*words)
    assert done.exit_code == 0, done.output
    return done.stdout.split()[2]


def test_a7_the_profile_of_dotenv_is_the_one_that_commands_act_on(project: Path) -> None:
    assert looked_at("doctor") == "local"
    (project / ".env").write_text(f"{PROFILE_VARIABLE}=leo\nDAGSTER_HOME=/nowhere\n")
    assert looked_at("doctor") == "leo"
    assert looked_at("doctor", "vsc") == "vsc", "what is typed wins"
    assert PROFILE_VARIABLE not in os.environ, "the variables are those of one command"
    assert dg_slurm("clean", "--dry-run").stdout.startswith("profile leo: 0 run directories would be removed")
    said = dg_slurm("attach", "8d1f").output
    assert "/nowhere" in said, "DAGSTER_HOME, too"
    assert "Traceback" not in said


def test_a7_dotenv_wins_over_variables_that_are_set_as_in_dg(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "vsc")
    assert looked_at("doctor") == "vsc"
    (project / ".env").write_text(f'# a comment\nexport {PROFILE_VARIABLE}="leo"\n')
    assert looked_at("doctor") == "leo"
    assert os.environ[PROFILE_VARIABLE] == "vsc"


def test_a7_dotenv_is_the_project_s_wherever_one_stands_in_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".env").write_text(f"{PROFILE_VARIABLE}=leo\n")
    inside = project / "src" / "deep"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert looked_at("doctor") == "leo"
    monkeypatch.chdir("/")
    assert looked_at("--project", str(project), "doctor") == "leo"
    assert Path.cwd() == Path("/")


def test_a_dotenv_that_is_no_text_is_told(project: Path) -> None:
    (project / ".env").write_bytes(b"A=\xff\n")
    done = dg_slurm("doctor")
    assert done.exit_code == 1
    assert f"Error: {project / '.env'}: can't read it" in done.output


def leaves(group: click.Group, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        inner = (
            leaves(command, *path, name) if isinstance(command, click.Group) else [((*path, name), command)]
        )
        found += inner
    return found


def test_each_command_with_a_profile_takes_it_both_ways() -> None:
    assert isinstance(main, LazyGroup)
    with_profile = {
        path: command
        for path, command in leaves(main)
        if any(isinstance(each, click.Option) and "--profile" in each.opts for each in command.params)
    }
    assert len(with_profile) >= 14
    assert {path[0] for path, _ in leaves(main)} == set(COMMANDS)
    for path, command in with_profile.items():
        arguments = [each for each in command.params if isinstance(each, click.Argument)]
        assert arguments, f"{path}: has no other argument, so that a profile can be one"


def test_two_different_profiles_are_refused(project: Path) -> None:
    assert looked_at("doctor", "leo", "--profile", "leo") == "leo"
    done = dg_slurm("doctor", "leo", "--profile", "vsc")
    assert done.exit_code == 2
    assert "Two profiles are named: leo and vsc" in done.output


def test_d1_what_init_advises_can_be_typed(project: Path) -> None:
    advice = dg_slurm("init", "profile", "new").stdout.split("`")[1]
    assert looked_at(*advice.split()[1:]) == "new"


def test_d10_no_line_of_a_help_is_cut() -> None:
    for words in ([], ["jobs"], ["env"], ["cluster"], ["sites"], ["agent"]):
        assert "..." not in dg_slurm(*words, "--help").stdout.partition("Commands:")[2]
    assert dg_slurm("sites", "list").stdout == dg_slurm("sites").stdout


def test_d3_doctor_advises_check_only_where_check_finds_something(project: Path) -> None:
    file = project / "profiles" / "leo.yaml"
    file.write_text(file.read_text() + "env: {A: \"{{ env('NO_SUCH_VARIABLE') }}\"}\n")
    assert "dg-slurm check" not in dg_slurm("doctor", "leo").stdout
    assert "did you mean `leo`" in dg_slurm("doctor", "leoo").stdout
    file.write_text("worcdir: /w\n")
    assert "dg-slurm check" in dg_slurm("doctor", "leo").stdout
