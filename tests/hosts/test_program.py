"""What is sent to hosts: one text, all that it needs, and its tracebacks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from satellite_fixture import OLD_PYTHON

from dagster_slurm_components.hosts import program as here
from dagster_slurm_components.hosts.program import BOOTSTRAP, modules, program

PYTHONS = [sys.executable, *filter(None, [OLD_PYTHON])]
OUTER = """
import traceback
from made_up.package.inner import work

def main():
    try:
        work("grün")
    except RuntimeError:
        print(ascii(traceback.format_exc()))
"""
INNER = """
def work(text):
    raise RuntimeError(ascii(text) + __name__)
"""


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the entry of a program that fails."""
    folder = tmp_path / "made_up" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('the packages themselves are not sent')")
    (folder / "inner.py").write_text(INNER)
    (folder / "outer.py").write_text(OUTER, "utf-8")
    (folder / "other.py").write_text("")
    monkeypatch.setattr(here, "_ROOT", tmp_path)
    return "made_up.package.outer"


def test_it_holds_what_is_imported_and_nothing_else(made_up):
    assert set(modules(made_up)) == {"made_up.package.outer", "made_up.package.inner"}


@pytest.mark.parametrize("python", PYTHONS)
def test_a_traceback_names_module_line_and_text(made_up, python):
    text = program(made_up)
    argv = [python, "-I", "-S", "-c", BOOTSTRAP, str(len(text))]
    done = subprocess.run(argv, input=text, capture_output=True, check=True, env={"LC_ALL": "C"}, cwd="/")
    said = ast.literal_eval(done.stdout.decode())
    assert 'File "made_up/package/inner.py", line 3, in work\n    raise RuntimeError(ascii(text)' in said
    assert "RuntimeError: 'gr\\xfcn'made_up.package.inner" in said
