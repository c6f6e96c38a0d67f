"""The real `dg`: it finds the component, scaffolds it, and refuses wrong words before anything is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from waiting import PATIENCE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TYPE = "dagster_slurm_components.SlurmScriptComponent"
PYPROJECT = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "made"\n'
DEFINITIONS = """\
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.fixture
def dg(tmp_path):
    """Run `dg` in a project, with the package's entry point known even where it is not installed."""
    info = tmp_path / "site" / "dagster_slurm_components-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dagster-slurm-components\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[dagster_dg_cli.registry_modules]\ndagster_slurm_components = dagster_slurm_components\n"
    )
    project = tmp_path / "project"
    package = project / "src" / "made"
    (package / "defs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    (project / "pyproject.toml").write_text(PYPROJECT)
    paths = (project / "src", ROOT, info.parent)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("DAGSTER")},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(map(str, paths)),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }

    def run(*args: str, succeeds: bool = True) -> str:
        done = subprocess.run(
            [BIN / "dg", *args],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode == 0) == succeeds, done.stdout
        return done.stdout

    run.defs = package / "defs"
    return run


def test_from_scaffold_to_definitions(dg):
    assert TYPE in dg("list", "components")
    dg("scaffold", "defs", TYPE, "train", "--launcher", "torchrun", "--asset", "models/digits")
    assert "did you mean `ray`?" in dg("scaffold", "defs", TYPE, "other", "--launcher", "rai", succeeds=False)
    assert "successfully" in dg("check", "yaml")
    assert "models/digits" in dg("list", "defs")
    assert '"torchrun"' in dg("utils", "inspect-component", TYPE)

    file = dg.defs / "train" / "defs.yaml"
    file.write_text(file.read_text().replace("torchrun", "torchrn").replace('time: "', 'tme: "'))
    told = dg("check", "yaml", succeeds=False)
    assert "attributes.scripts.0.launcher.type" in told
    assert "'tme' was unexpected" in told
    told = dg("check", "defs", "--no-check-yaml", succeeds=False)
    assert told.count("2 mistakes in YAML") >= 1
    assert "did you mean `torchrun`?" in told
    assert "did you mean `time`?" in told
    assert "ValidationError" not in told


IN_PYTHON = """\
import dagster as dg
from dagster_slurm_components import SlurmScriptComponent


@dg.component_instance
def load(context: dg.ComponentLoadContext) -> SlurmScriptComponent:
    asset = {"key": dg.AssetKey(["models", "one"]), "partitions_def": dg.StaticPartitionsDefinition(["x"])}
    scripts = [{"payload": "one.sh", "assets": [asset]}]
    return SlurmScriptComponent.from_attributes_dict(attributes={"scripts": scripts}, context=context)
"""
OWN = """\
import dagster as dg
from dagster_slurm_components import SlurmScriptComponent


class Owned(SlurmScriptComponent):
    def get_asset_spec(self, spec, script):
        return spec.merge_attributes(owners=["team:hpc"])
"""


def test_every_form_of_scaffold(dg):
    options = json.dumps({"asset": "models/two", "payload": "two.sh"})
    dg("scaffold", "defs", TYPE, "two", "--json-params", options)
    dg("scaffold", "defs", TYPE, "one", "--format", "python")
    file = dg.defs / "one" / "component.py"
    assert "def load(context: dg.ComponentLoadContext) -> SlurmScriptComponent: ..." in file.read_text()
    file.write_text(IN_PYTHON)
    (file.parent / "one.sh").write_text("echo one\n")
    dg("scaffold", "defs", "inline-component", "three", "--typename", "Owned", "--superclass", TYPE)
    own = dg.defs / "three" / "owned.py"
    assert "class Owned(SlurmScriptComponent):" in own.read_text()
    own.write_text(OWN)
    made = "type: made.defs.three.owned.Owned\nattributes: {scripts: [{command: ['true'], assets: [{key: three}]}]}\n"
    (own.parent / "defs.yaml").write_text(made)
    assert "successfully" in dg("check", "yaml")
    found = json.loads(dg("list", "defs", "--json"))
    assets = {asset["asset_key"]: asset for asset in found["assets"]}
    assert set(assets) == {"models/one", "models/two", "three"}
    assert assets["three"]["owners"] == [{"team": "hpc"}]
    tree = dg("list", "component-tree")
    assert "defs.yaml (Owned)" in tree
    assert "defs.yaml (SlurmScriptComponent)" in tree


def test_what_dg_says_of_the_component(dg):
    assert "dagster_slurm_components" in dg("list", "registry-modules")
    (row,) = [row for row in json.loads(dg("list", "components", "--json"))["items"] if row["key"] == TYPE]
    assert row["summary"].startswith("Scripts that run on a laptop")
    sample = yaml.safe_load(dg("utils", "inspect-component", TYPE, "--defs-yaml-example-values"))
    assert sample["attributes"]["scripts"][0]["payload"] == "train.py"
    assert "Array of AssetDeclaration objects" in dg("utils", "inspect-component", TYPE, "--defs-yaml-schema")
    params = json.loads(dg("utils", "inspect-component", TYPE, "--scaffold-params-schema"))
    assert {"payload", "launcher", "asset", "environment"} <= params["properties"].keys()
    dg("utils", "generate-component-schema")
    assert TYPE in (dg.defs.parents[2] / ".dg" / "schema.json").read_text()


def test_variables_that_a_component_requires(dg):
    dg("scaffold", "defs", TYPE, "train")
    file = dg.defs / "train" / "defs.yaml"
    file.write_text(file.read_text() + "requirements: {env: [HPC_ACCOUNT]}\n")
    (row,) = [line for line in dg("list", "envs").splitlines() if "HPC_ACCOUNT" in line]
    assert "train" in row
    assert "successfully" in dg("check", "yaml", "--validate-requirements")
    text = file.read_text()
    file.write_text(
        text.replace("[HPC_ACCOUNT]", "[]").replace(
            "mem: 1G", "mem: 1G, account: '{{ env(\"HPC_ACCOUNT\") }}'"
        )
    )
    assert "HPC_ACCOUNT" in dg("check", "yaml", "--validate-requirements", succeeds=False)
    file.write_text(text)
    file.write_text(file.read_text().replace("env: [", "evn: ["))
    assert "evn" in dg("check", "yaml", succeeds=False)
