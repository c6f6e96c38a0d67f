"""The real `dg`: it finds the component, scaffolds it, and refuses wrong words before anything is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
            timeout=300,
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
