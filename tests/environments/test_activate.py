"""The fixed ``activate.sh``, sourced as ``job.sh`` does it, on nodes that are not as the login node is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dagster_slurm_components.environments.base import Activation, ActivationStep
from dagster_slurm_components.hosts.program import shipped

MODULE = """
export MODULEPATH=/modules
module() { export LOADEDMODULES="$LOADS"; }
export -f module
"""


def activate(
    tmp_path: Path, *step: str, loads: str = "", before: str = MODULE
) -> subprocess.CompletedProcess[str]:
    """Activate one step after some shell lines; print the interpreter that it found."""
    (tmp_path / "activate.sh").write_text(shipped("environments/shell/activate.sh"))
    activation = Activation((ActivationStep(step[0], step[1:]),))
    (tmp_path / "activate.args").write_bytes(activation.arguments())
    command = f'{before}\n. "$DAGSTER_SLURM_RUN_DIR/activate.sh"; echo "python: $DAGSTER_SLURM_PYTHON"'
    env = {**os.environ, "DAGSTER_SLURM_RUN_DIR": str(tmp_path), "LOADS": loads}
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "loaded", "is_there"),
    [
        ("gcc/12", "gcc/12.3.0", True),
        ("gcc", "base/1:gcc/12.3.0", True),
        ("gcc/12.3.0", "gcc/12.3.0", True),
        ("python/3.1", "python/3.11.4", False),
        ("gcc/12", "gcc/13.1", False),
        ("gcc/12", "", False),
    ],
)
def test_a_module_may_be_named_by_the_beginning_of_its_version(
    name: str, loaded: str, is_there: bool, tmp_path: Path
):
    done = activate(tmp_path, "modules", name, loads=loaded)
    assert done.returncode == (0 if is_there else 96)
    assert (f"module {name} is not loaded" in done.stderr) is not is_there


def test_a_python_that_this_node_lacks_is_no_reason_to_take_another(tmp_path: Path):
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").symlink_to("/only/on/login/nodes/python3")
    done = activate(tmp_path, "prefix", str(tmp_path / "env"))
    assert done.returncode == 96
    assert f"{tmp_path}/env/bin/python can't be executed" in done.stderr
    (tmp_path / "env" / "bin" / "python").unlink()  # one that holds programs alone has none
    assert activate(tmp_path, "prefix", str(tmp_path / "env")).stdout == "python: \n"
