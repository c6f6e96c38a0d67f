"""The command: what it prints, and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from waiting import PATIENCE

from dagster_slurm_components.cli.main import COMMANDS, main
from dagster_slurm_components.spec.schemas import schemas

WRONG = b"payload: train.py\nlauncher: {type: torchrn}\nassets: [{key: a}]\n"
RIGHT = b"payload: train.py\nassets: [{key: a, deps: [b]}]\n"


@pytest.fixture
def run(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def invoke(content: bytes, *args: str):
        project("script-any", content)
        return CliRunner().invoke(main, ["check", *args], catch_exceptions=False)

    return invoke


def test_text_with_caret_and_exit_status(run):
    done = run(WRONG)
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "defs/jobs/script.yaml:2:18: unknown launcher type `torchrn`",
        "    launcher: {type: torchrn}",
        "                     ^",
        "    did you mean `torchrun`?",
        "checked 4 files, 1 script: 1 error",
    ]


def test_warnings_are_errors_only_if_strict(run):
    done = run(RIGHT)
    assert done.exit_code == 0
    assert "script.yaml:2:26: warning: no script makes `b`" in done.output
    assert done.output.endswith("checked 4 files, 1 script: 1 warning\n")
    assert run(RIGHT, "--strict").exit_code == 1


@pytest.mark.parametrize("mistake", ["launcher: {type: torchrn}", "assets: [{key: b, kye: b}]"])
def test_what_a_script_with_a_mistake_makes_is_known_to_others(run, tmp_path, mistake):
    """Or may be: nothing is said of a missing maker while one's assets can't be read."""
    run(RIGHT)
    maker = {"payload": "payload: train.py", "assets": "assets: [{key: b}]"}
    maker[mistake.partition(":")[0]] = mistake
    (tmp_path / "defs" / "jobs" / "maker.yaml").write_text("\n".join(maker.values()) + "\n")
    done = run(RIGHT)
    assert "no script makes" not in done.output
    assert done.output.endswith("checked 5 files, 2 scripts: 1 error\n")


def test_deps_are_left_alone_when_single_files_are_named(run):
    done = run(RIGHT, "defs/jobs/script.yaml", "--strict")
    assert (done.exit_code, done.output) == (0, "checked 2 files, 1 script: all right\n")


@pytest.mark.parametrize("path", ["defs/jobs", "defs/jobs/script.yaml", "defs/defs.yaml", "defs", "."])
def test_a_script_is_found_through_any_path(run, path):
    done = run(WRONG, path)
    assert done.exit_code == 1
    assert "unknown launcher type" in done.output


def test_json(run):
    done = run(WRONG, "--json")
    assert json.loads(done.output) == {
        "files": 4,
        "scripts": 1,
        "problems": [
            {
                "file": "defs/jobs/script.yaml",
                "line": 2,
                "column": 18,
                "level": "error",
                "kind": "unknown_type",
                "message": "unknown launcher type `torchrn`",
                "hint": "did you mean `torchrun`?",
                "path": ["launcher", "type"],
            }
        ],
    }


def test_github(run):
    done = run(b"payload: train.py\nassets: [{key: a}]\nargs: ['%', 5.5]\n", "--format", "github")
    assert done.output == (
        "::error file=defs/jobs/script.yaml,line=3,col=13,title=dg-slurm check::"
        "expected text, got the number 5.5%0Awrite it in quotes\n"
    )


def test_one_profile(run):
    content = b"payload: train.py\nassets: [{key: a}]\nprofiles: {production: {payload: no.py}}\n"
    assert "(in profile production)" in run(content).output
    assert run(content, "--profile", "local").exit_code == 0
    assert "(in profile" not in run(content, "--profile", "production").output


@pytest.mark.parametrize("args", [["--profile", "nope"], ["nowhere"], ["--format", "xml"]])
def test_what_can_not_be_checked(run, args):
    assert run(RIGHT, *args).exit_code == 2


def test_a_broken_profile_is_told_once_and_does_not_hide_the_rest(run, tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "broken.yaml").write_text("shceduler: slurm\n")
    done = run(WRONG)
    assert done.output.count("unknown key `shceduler`") == 1
    assert "unknown launcher type" in done.output


def test_hidden_folders_and_environments_are_skipped(run, tmp_path):
    for folder in (".venv/profiles", "node_modules/profiles", "build/profiles"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.yaml").write_text("nonsense: 1\n")
    assert run(RIGHT).exit_code == 0


def test_nothing_to_check(tmp_path):
    done = CliRunner().invoke(main, ["check", str(tmp_path)])
    assert done.exit_code == 2
    assert f"There is nothing to check in {tmp_path}" in done.output


def test_d11_a_mistyped_defaults_hides_no_mistake_below_it(tmp_path):
    (tmp_path / "defs.yaml").write_text(
        "type: dagster_slurm_components.SlurmScriptComponent\n"
        "attributes:\n"
        "  default: {launcher: {type: bash}}\n"
        "  scripts:\n"
        "    - {command: [a], assets: [x/y], resources: {cpus: 4}}\n"
        "    - {comand: [a], assets: [{key: b}]}\n"
    )
    said = CliRunner().invoke(main, ["check", str(tmp_path)]).output
    for expected in ("did you mean `defaults`?", "write `{key: x/y}`", "did you mean `cpus_per_task`?"):
        assert expected in said
    assert "unknown key `comand`" in said


def test_schema_writes_checks_and_prints(tmp_path):
    folder = str(tmp_path / "schemas")
    runner = CliRunner()
    assert runner.invoke(main, ["schema", "--folder", folder, "--check"]).exit_code == 1
    assert runner.invoke(main, ["schema", "--folder", folder]).output.count("wrote ") == 5
    assert runner.invoke(main, ["schema", "--folder", folder]).output == ""
    assert runner.invoke(main, ["schema", "--folder", folder, "--check"]).exit_code == 0
    (tmp_path / "schemas" / "site.schema.json").write_text("{}")
    assert runner.invoke(main, ["schema", "--folder", folder, "--check"]).exit_code == 1
    printed = runner.invoke(main, ["schema", "--print", "profile"]).output
    assert printed == schemas()["profile.schema.json"]
    assert "definitions.schema.json" not in printed  # one piece, unlike the file
    assert runner.invoke(main, ["schema", "--print", "x"]).exit_code == 2


def test_all_commands_can_be_imported():
    runner = CliRunner()
    for name in COMMANDS:
        assert runner.invoke(main, [name, "--help"]).exit_code == 0, name
    assert runner.invoke(main, ["--version"]).output.startswith("dg-slurm, version ")


def test_checking_imports_neither_dagster_nor_ssh():
    code = (
        "import sys; import dagster_slurm_components.cli.check;"
        "sys.exit(','.join({'dagster', 'paramiko', 'fabric', 'jinja2', 'asyncio'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
