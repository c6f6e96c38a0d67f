"""`dg scaffold defs` writes what is right and runs at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import dagster as dg
import pytest
import yaml
from dagster.components.component_scaffolding import scaffold_object
from waiting import PATIENCE

from dagster_slurm_components.component.scaffolder import ScaffoldParams
from dagster_slurm_components.spec.environments import ENVIRONMENTS
from dagster_slurm_components.spec.project import check_project

from .conftest import load_folder

TYPE = "dagster_slurm_components.SlurmScriptComponent"
BIN = Path(sys.executable).parent
VARIANTS = [
    {},
    {"payload": "run.sh"},
    {"payload": "fit.R"},
    {"payload": "fit.jl", "launcher": "srun"},
    {"payload": "src/train.py", "asset": "models/digits"},
    {"launcher": "srun"},
    {"launcher": "srun", "payload": "mpi.sh"},
    {"payload": "report.ipynb"},
    {"launcher": "torchrun"},
    {"launcher": "ray"},
    {"asset": "0815", "payload": "it's; $(x) ü.py"},
    *({"environment": name} for name in sorted(ENVIRONMENTS)),
]


@pytest.fixture
def scaffold(tmp_path):
    (tmp_path / "pyproject.toml").touch()

    def make(name: str = "work", *, append: bool = False, form: str = "yaml", **params: str) -> Path:
        folder = tmp_path / "defs" / name
        target = folder / "defs.yaml" if append else folder
        scaffold_object(target, TYPE, json.dumps(params), form, tmp_path, append)
        return folder

    return make


@pytest.mark.parametrize("params", VARIANTS, ids=lambda params: "-".join(params.values()) or "default")
def test_what_is_written_is_right_and_loads(scaffold, params):
    folder = scaffold(**params)
    problems = check_project([folder]).problems
    if params.get("environment") in (None, "current", "path", "modules"):
        assert not problems, "\n".join(map(str, problems))
    (script,) = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]["scripts"]
    said = {name: script[name]["type"] for name in ("launcher", "environment") if name in script}
    assert said == {name: params[name] for name in ("launcher", "environment") if name in params}
    (spec,) = load_folder(folder.parent).resolve_all_asset_specs()
    assert spec.key.to_user_string() == params.get("asset", "work")
    language = {"sh": "bash", "R": "r", "jl": "julia", "ipynb": "jupyter"}.get(
        params.get("payload", "").rpartition(".")[2], "python"
    )
    assert spec.kinds == {language, params.get("launcher", "bash")} - (
        {"bash"} if language != "bash" else set()
    )
    text = (folder / "defs.yaml").read_text()
    assert f"type: {TYPE}\n" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("params", [{}, {"launcher": "srun"}, {"launcher": "torchrun"}, {"launcher": "ray"}])
def test_python_payloads_run_by_hand(scaffold, params):
    folder = scaffold(**params)
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert_formatted(folder / "main.py")


def assert_formatted(file: Path) -> None:
    done = subprocess.run(
        [BIN / "ruff", "check", "--isolated", "--select", "E,F,I,B,UP", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_shell_payload_runs_by_hand(scaffold):
    folder = scaffold(payload="run.sh")
    done = subprocess.run(
        ["bash", "run.sh"], cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "total: 333833500" in done.stdout
    assert subprocess.run([BIN / "shellcheck", folder / "run.sh"], check=False).returncode == 0


@pytest.mark.parametrize(("program", "file"), [("Rscript", "fit.R"), ("julia", "fit.jl")])
def test_payloads_of_other_languages_run_by_hand(scaffold, program, file):
    folder = scaffold(payload=file)
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")
    done = subprocess.run(
        [program, file], cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "total: 333833500" in done.stdout


def test_editors_find_the_schema(scaffold, tmp_path):
    assert not (scaffold("none") / "defs.yaml").read_text().startswith("# yaml-language-server")
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "defs.schema.json").touch()
    first = (scaffold() / "defs.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../../schemas/defs.schema.json"


def test_a_payload_that_exists_is_kept(scaffold, tmp_path):
    shared = tmp_path / "defs" / "shared.py"
    shared.parent.mkdir()
    shared.write_text("print('mine')\n")
    scaffold(payload="../shared.py")
    assert shared.read_text() == "print('mine')\n"


def test_a_payload_elsewhere_must_exist(scaffold, tmp_path):
    with pytest.raises(click.ClickException, match="There is no"):
        scaffold(payload="../nothing.py")
    assert not (tmp_path / "defs" / "work").exists(), "no empty folder stays behind"


def test_append_adds_a_document(scaffold):
    folder = scaffold(asset="one")
    scaffold(append=True, asset="two", payload="other.py")
    specs = load_folder(folder.parent).resolve_all_asset_specs()
    assert {spec.key.to_user_string() for spec in specs} == {"one", "two"}


def test_folder_name_becomes_a_key(scaffold):
    folder = scaffold("my träining")
    (spec,) = load_folder(folder.parent).resolve_all_asset_specs()
    assert spec.key == dg.AssetKey("my_tr_ining")


def test_python_format(scaffold):
    folder = scaffold(form="python")
    assert "component_instance" in (folder / "component.py").read_text()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"launcher": "torchrn"}, "did you mean `torchrun`"),
        ({"environment": "modul"}, "did you mean `modules`"),
        ({"payload": "train.m"}, r"ends in \.py, \.sh, \.sbatch, \.slurm, \.R"),
        ({"payload": "train.ipynb", "launcher": "srun"}, "a notebook runs once"),
        ({"payload": "train.ipynb", "launcher": "torchrun"}, "name a .py file"),
        ({"payload": "train.R", "launcher": "torchrun"}, "name a .py file"),
        ({"payload": "train.sh", "launcher": "ray"}, "name a .py file"),
        ({"asset": "a b"}, "asset"),
    ],
)
def test_wrong_options(params, message):
    with pytest.raises(click.UsageError, match=message):
        ScaffoldParams.model_validate(params)
