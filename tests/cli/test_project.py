"""One loader: what Dagster knows of a project, `env`, `render` and `check` know too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from project_fixture import Project

from dagster_slurm_components.cli.main import main

SUBCLASS = "from dagster_slurm_components import SlurmScriptComponent\n\n\nclass Lab(SlurmScriptComponent):\n    pass\n"
VARIABLES = """
import dagster as dg

@dg.template_var
def cores() -> int:
    return 7
"""


@pytest.fixture
def lab(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a subclass of the component, variables of its own, and Dagster's names in a template."""
    monkeypatch.chdir(project.root)
    (project.root / "src" / project.package / "lab.py").write_text(SUBCLASS)
    project.write("variables.py", VARIABLES)
    project.write("train.py", "")
    project.write("image.sif", "")
    project.write(
        "defs.yaml",
        f"""\
        type: {project.package}.lab.Lab
        template_vars_module: .variables
        attributes:
          scripts:
            - payload: train.py
              args: ["--cores", "{{{{ cores }}}}"]
              environment: {{type: container, image: image.sif}}
              assets: [{{key: model, automation_condition: "{{{{ dg.AutomationCondition.eager() }}}}"}}]
        """,
    )
    return project


def dg_slurm(*args: str) -> str:
    done = CliRunner().invoke(main, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_subclass_and_the_names_that_dagster_knows(lab: Project):
    assert json.loads(dg_slurm("render", "model", "--json"))["payload"][-2:] == ["--cores", "7"]
    (row,) = json.loads(dg_slurm("env", "plan", "--json"))
    assert row["scripts"] == ["train.py"]
    assert dg_slurm("check").endswith("1 script: all right\n")


def test_what_is_wrong_with_a_subclass_is_told(lab: Project):
    text = (lab.defs / "defs.yaml").read_text()
    lab.write(
        "defs.yaml",
        text.replace("payload: train.py", "payload: tarin.py").replace("args:", "agrs:"),
    )
    done = CliRunner().invoke(main, ["check"])
    assert done.exit_code == 1
    assert "no file matches 'tarin.py'" in done.output
    assert "unknown key `agrs`" in done.output


def test_a_type_that_can_not_be_imported_is_left_to_dagster(lab: Project):
    text = (lab.defs / "defs.yaml").read_text()
    lab.write("defs.yaml", text.replace(".lab.Lab", ".nowhere.Lab"))
    assert dg_slurm("check").endswith("0 scripts: all right\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "{name: train, command: [a], assets: [{key: a}]}",
            "{name: train, command: [a], assets: [{key: b}]}",
        ),
        ("{command: [a], assets: [{key: a/b}]}", "{command: [a], assets: [{key: a__b}]}"),
        (
            "{name: a-b, command: [a], assets: [{key: a}]}",
            "{op: {name: a_b}, command: [a], assets: [{key: b}]}",
        ),
    ],
)
def test_two_components_can_not_name_their_ops_alike(project: Project, one: str, other: str):
    """Dagster would only say that node definitions conflict."""
    head = "type: dagster_slurm_components.SlurmScriptComponent\nattributes:\n  scripts:\n    - "
    project.write("one/defs.yaml", head + one + "\n")
    project.write("two/defs.yaml", head + other + "\n")
    done = CliRunner().invoke(main, ["check"])
    assert done.exit_code == 1
    first = Path("defs/work/one/defs.yaml")
    (line,) = [line for line in done.output.splitlines() if "two scripts are named" in line]
    assert "work/two/defs.yaml:4:" in line
    assert f"the first is in {project.root}/src/{project.package}/{first}:4:" in line
