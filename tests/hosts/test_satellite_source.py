import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_slurm_components.hosts import loader, satellite
from dagster_slurm_components.hosts.satellite.operations import OPS

FOLDER = Path(satellite.__file__).parent
NAMES = [path.stem for path in sorted(FOLDER.glob("[a-z]*.py"))]
SOURCES = [Path(loader.__file__), *sorted(FOLDER.glob("*.py"))]
LISTED = re.findall(r"``(\w+)``[:,]", str(satellite.__doc__).partition("* ")[2])


def imported(source: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(source.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_it_needs_itself_and_the_standard_library_alone():
    others = {
        name
        for source in SOURCES
        for name in imported(source)
        if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert others <= {f"{satellite.__name__}.{name}" for name in NAMES}


def test_all_modules_are_listed_each_after_those_it_imports():
    assert sorted(LISTED) == NAMES
    for number, name in enumerate(LISTED):
        ours = {other for other in imported(FOLDER / f"{name}.py") if other.startswith(satellite.__name__)}
        assert ours <= {f"{satellite.__name__}.{other}" for other in LISTED[:number]}, name


def test_it_needs_no_more_than_python_3_6():
    vermin = shutil.which("vermin", path=str(Path(sys.executable).parent)) or shutil.which("vermin")
    if vermin is None:
        pytest.skip("vermin is not installed (it is in the dev group)")
    done = subprocess.run(
        [vermin, "--no-tips", "--target=3.6-", *map(str, SOURCES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_operation_has_a_typed_method():
    typed = (FOLDER.parent / "client.py").read_text()
    missing = [op for op in OPS if f'_call("{op}"' not in typed.replace("\n", "").replace(" ", "")]
    assert missing == ["ping"], "ping is the channel's own"
