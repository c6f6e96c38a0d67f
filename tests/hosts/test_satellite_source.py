import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_slurm_components.hosts import satellite

SOURCE = Path(satellite.__file__)
TREE = ast.parse(SOURCE.read_text())


def test_it_needs_the_standard_library_alone():
    imported = {
        name.split(".")[0]
        for node in ast.walk(TREE)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
        )
    }
    assert imported <= set(sys.stdlib_module_names)


def test_it_needs_no_more_than_python_3_6():
    vermin = shutil.which("vermin", path=str(Path(sys.executable).parent)) or shutil.which("vermin")
    if vermin is None:
        pytest.skip("vermin is not installed (it is in the dev group)")
    done = subprocess.run(
        [vermin, "--no-tips", "--target=3.6-", str(SOURCE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_operation_has_a_typed_method():
    typed = (SOURCE.parent / "client.py").read_text()
    missing = [op for op in satellite.OPS if f'_call("{op}"' not in typed.replace("\n", "").replace(" ", "")]
    assert missing == ["ping"], "ping is the channel's own"
