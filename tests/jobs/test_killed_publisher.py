"""A publisher that is killed before each of its steps: nothing is half there, and the next attempt tidies up."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from outputs_fixture import RunDirectory, run_directory

KILLER = """
import os, runpy, signal, sys

left = int(os.environ["STEPS"])

def counted(step):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **options)
    return call

if "-c" in sys.argv:  # which asks for the version
    sys.exit()
for name in ("mkdir", "link", "chmod", "rename", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
sys.path.insert(0, os.path.dirname(sys.argv[-1]))
runpy.run_path(sys.argv[-1], run_name="__main__")
"""
NAMES = ["a", "b", "deep/c"]


def left_by(parent: Path) -> list[Path]:
    return sorted(parent.glob(".t.dg-slurm-*"))


def version(folder: Path) -> str:
    """Return the one version that a folder holds, whole."""
    (text,) = {(folder / name).read_text() for name in NAMES}
    return text


def make(there: RunDirectory, text: str) -> str:
    for name in NAMES:  # new files, as a job of its own makes them
        (there.payload / "out" / name).unlink(missing_ok=True)
        there.file(f"out/{name}", text)
    return text


@pytest.mark.parametrize("replaces", [False, True], ids=["nothing there", "an older one there"])
def test_killed_before_each_step(tmp_path: Path, replaces: bool) -> None:
    there, parent = run_directory(tmp_path / "run"), tmp_path / "data"
    target, older = parent / "t", make(there, "older")
    wanted = {"out": {"path": "out", "to": str(target)}}
    there.collect(wanted)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/killer.py "$@"\n')
    python.chmod(0o755)
    (tmp_path / "killer.py").write_text(KILLER)
    halves = 0
    for steps in itertools.count():
        if not replaces:
            target.rename(tmp_path / f"moved-{steps}")
        now = make(there, f"{steps}")
        variables = {"PATH": "/usr/bin:/bin", "DAGSTER_SLURM_HOST_PYTHON": str(python), "STEPS": str(steps)}
        command = ["bash", "collector/collect.sh"]
        done = subprocess.run(command, cwd=there.path, env=variables, check=False, timeout=60)
        assert done.returncode in (0, -signal.SIGKILL)
        halves += bool(left_by(parent))
        before = older if replaces else None
        if target.exists():
            assert version(target) in (before, now)
        else:  # nothing yet; or between the two renames, where the old one is whole and at hand
            aside = [version(each) for each in left_by(parent) if "-old-" in each.name]
            assert aside == ([] if before is None else [before])
        if done.returncode == 0:
            break
        there.collect(wanted)
        assert version(target) == now
        assert left_by(parent) == []
        older = now
    assert version(target) == now
    assert left_by(parent) == []
    assert halves > len(NAMES), "it was struck in the middle"
