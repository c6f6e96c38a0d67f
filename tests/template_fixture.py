"""Projects made from the template.

Import what a test module needs: ``from template_fixture import answers, render``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import copier
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

WORKLOADS = ("python", "bash", "torchrun", "ray", "none")
FACTORS: Mapping[str, tuple[str, ...]] = {
    "workload": WORKLOADS,
    "environment": ("uv", "pixi", "modules", "container"),
    "production_site": ("other", "daint", "leonardo", "lumi", "musica", "tuwien_datalab", "vsc5"),
    "staging_site": ("cluster", "daint", "leonardo", "lumi", "musica", "tuwien_datalab", "vsc5", "other"),
    "production_login": ("key", "key, otp", "password", "password, otp", "certificate"),
    "production_user": ("", "ada.lovelace"),
    "production_account": ("", "proj_1"),
}


def is_allowed(row: Mapping[str, str]) -> bool:
    """Return whether the template takes these answers together."""
    return not (row.get("environment") == "container" and row.get("workload") in ("torchrun", "ray"))


def pairwise(factors: Mapping[str, tuple[str, ...]]) -> list[dict[str, str]]:
    """Return answers in which each two values of different questions meet at least once."""
    names = list(factors)
    open_pairs = {
        ((a, x), (b, y))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        for x, y in product(factors[a], factors[b])
        if is_allowed({a: x, b: y})
    }
    rows = []
    while open_pairs:
        row: dict[str, str] = dict(min(open_pairs))
        for name in names:
            if name not in row:
                allowed = [value for value in factors[name] if is_allowed({**row, name: value})]
                row[name] = max(allowed, key=lambda value: _gain({**row, name: value}, open_pairs))
        open_pairs = {pair for pair in open_pairs if not all(row[name] == value for name, value in pair)}
        rows.append({name: row[name] for name in names})
    return rows


def _gain(row: Mapping[str, str], open_pairs: set[Any]) -> int:
    return sum(all(row.get(name) == value for name, value in pair) for pair in open_pairs)


def template_copy(folder: Path) -> Path:
    """Copy the template alone: copier would clone the whole repository, and take its last tag."""
    shutil.copytree(ROOT / "template", folder / "template")
    shutil.copy(ROOT / "copier.yml", folder)
    return folder


def render(folder: Path, *, source: Path | None = None, **data: str) -> Path:
    """Make a project with these answers, and the default of every other question."""
    source = source or template_copy(folder.with_name(f"{folder.name} template"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copier.run_copy(str(source), folder, data=data, defaults=True, quiet=True)
    return folder


def answers(project: Path) -> dict[str, Any]:
    """Return what copier remembers."""
    return dict(yaml.safe_load((project / ".copier-answers.yml").read_text()))


def run(project: Path, *argv: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the test environment in a project, as its users would by `uv run`."""
    path = os.pathsep.join([str(project / "src"), str(ROOT), *filter(None, [env.pop("PYTHONPATH", "")])])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    done = subprocess.run(
        argv,
        cwd=project,
        # PWD as a shell sets it: the project's .env names Dagster's folder by it.
        env={
            **clean,
            **{
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "NO_COLOR": "1",
                "PYTHONPATH": path,
                "PWD": str(project),
            },
            **env,
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
