"""This package as its users get it: a wheel and an sdist, and the real uv that installs them.

Tests that ask for ``built`` share one worker (see conftest.py), and the user's own uv cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = os.environ.get("DAGSTER_SLURM_REQUIRE_INDEX") == "1"
FOREIGN = ("DAGSTER_", "PYTHON", "SLURM_", "VIRTUAL_ENV", "UV_PROJECT", "UV_PYTHON")


@dataclass(frozen=True)
class Newcomer:
    """Someone who has Python, git and uv, and types what a page says.

    Attributes:
        programs: A folder with `uv` and `uvx`, and nothing else of the tests' own environment.
    """

    programs: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a terminal in which nothing is set for Dagster or this package."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        folders = [each for each in os.environ["PATH"].split(":") if each != str(Path(sys.executable).parent)]
        path = ":".join([str(self.programs), *folders])
        # uv does not take the machine's own certificates by itself, as pip does.
        return {"UV_SYSTEM_CERTS": "1", "NO_COLOR": "1", **kept, "PATH": path, **more}

    def types(
        self, line: str, cwd: Path, *, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a line in bash."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=cwd,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{line}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
        return done


@dataclass(frozen=True)
class Built:
    """The files that a release consists of."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """Someone who has uv."""
    programs = tmp_path_factory.mktemp("programs")
    for name in ("uv", "uvx"):
        (programs / name).symlink_to(Path(sys.executable).with_name(name))
    return Newcomer(programs)


@pytest.fixture(scope="session")
def built(newcomer: Newcomer, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel, made from the sdist, as a release is; skips, or fails if it is required, without an index.

    DAGSTER_SLURM_REQUIRE_INDEX=1 requires it.
    """
    folder = tmp_path_factory.mktemp("dist")
    done = newcomer.types(f"uv build --quiet --out-dir '{folder}'", ROOT, check=False)
    if "error sending request" in done.stderr.lower() and not REQUIRED:
        pytest.skip(f"no package index can be reached: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    ((wheel,), (sdist,)) = (list(folder.glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return Built(wheel, sdist)
