"""The tests on other Slurms: what a table says, and where no root can be made."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

RESULTS = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_one"/>
<testcase classname="tests.a" name="test_two"><failure message="no"/></testcase>
<testcase classname="tests.a" name="test_three"><skipped type="pytest.skip" message="no browser here"/></testcase>
<testcase classname="tests.b" name="test_four"><skipped type="pytest.skip" message="no browser here"/></testcase>
<testcase classname="tests.b" name="test_five"/>
</testsuite></testsuites>"""


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("DAGSTER_SLURM_ROOTS", str(tmp_path / "roots"))
    return importlib.import_module("slurm_roots")


@pytest.fixture
def slurms(roots: ModuleType) -> ModuleType:
    return importlib.import_module("test_slurms")


def test_a_row_says_what_was_skipped_and_why(slurms: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "results.xml").write_text(RESULTS)
    row = slurms.read(tmp_path / "results.xml", ("slurm-wlm 24.11.5", "Debian 13", "Python 3.13.5"))
    assert str(row) == "| slurm-wlm 24.11.5 | Debian 13 | Python 3.13.5 | 2 | 1 | 2: no browser here |"
    assert row.failed == ("tests.a::test_two",)


def test_only_root_makes_a_root(roots: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots.os, "getuid", lambda: 1000)
    with pytest.raises(roots.CannotMakeError, match="by root only"):
        roots.ROOTS["sid"].ensure()


def test_a_missing_debootstrap_is_named(roots: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots.os, "getuid", lambda: 0)
    monkeypatch.setattr(
        roots.shutil, "which", lambda program: None if program == "debootstrap" else "/bin/it"
    )
    with pytest.raises(roots.CannotMakeError, match=r"^debootstrap is missing: apt-get install [\w -]+$"):
        roots.ROOTS["sid"].ensure()


def test_an_interrupted_root_is_not_whole(roots: ModuleType) -> None:
    root = roots.ROOTS["trixie"]
    root.stamp.parent.mkdir(parents=True)
    assert not root.is_whole()
    root.stamp.write_text("\n".join(root.packages))
    assert root.is_whole()
    root.stamp.write_text("of fewer packages")
    assert not root.is_whole()


def test_unknown_names_are_told_with_the_known_ones() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "test_slurms.py"), "nope"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr[:44]) == (2, "unknown: nope; there are here, bookworm, tri")
