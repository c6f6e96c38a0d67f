"""Virtual environments with real frameworks, made on first use and kept between test runs.

PyTorch and Ray stay outside the environment that the tests run in, so that this one stays light. They lie in
``.venvs`` in the repository, or in the folder that DAGSTER_SLURM_TEST_VENVS names; all pytest-xdist workers
share them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dagster_slurm_components.cluster.lock import folder_lock

REQUIRED = os.environ.get("DAGSTER_SLURM_REQUIRE_FRAMEWORKS") == "1"


@dataclass(frozen=True)
class Framework:
    """A virtual environment to make.

    Attributes:
        name: Its folder's name.
        packages: What pip installs. pip, and not uv: uv takes torch's build for GPUs, several gigabytes.
    """

    name: str
    packages: tuple[str, ...]


TORCH = Framework("torch", ("torch==2.13.0", "numpy", "scikit-learn"))
RAY = Framework("ray", ("ray[default]", "numpy", "scikit-learn"))


def folder() -> Path:
    """Return where the environments lie."""
    chosen = os.environ.get("DAGSTER_SLURM_TEST_VENVS")
    return Path(chosen).resolve() if chosen else Path(__file__).resolve().parents[1] / ".venvs"


def ensure(framework: Framework) -> Path:
    """Return the environment's folder, made if need be; skip the test where it can't be made.

    A test that needs it fails instead if DAGSTER_SLURM_REQUIRE_FRAMEWORKS=1.
    """
    prefix = folder() / framework.name
    done = prefix / "installed"
    wanted = "\n".join(framework.packages)
    with folder_lock(folder() / f"{framework.name}.lock"):
        if not (done.exists() and done.read_text() == wanted):
            _install(prefix, framework.packages)
            done.write_text(wanted)
    return prefix


def _install(prefix: Path, packages: tuple[str, ...]) -> None:
    commands = (
        (sys.executable, "-m", "venv", "--clear", str(prefix)),
        (str(prefix / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages),
    )
    for argv in commands:
        completed = subprocess.run(argv, capture_output=True, text=True, timeout=1200, check=False)
        if completed.returncode != 0:
            message = f"{' '.join(argv)}: {completed.stderr[-2000:]}"
            if REQUIRED:
                pytest.fail(message)
            pytest.skip(f"no {packages[0]} here: {message}")


@pytest.fixture(scope="session")
def torch_venv() -> Path:
    """A virtual environment with a CPU build of PyTorch."""
    return ensure(TORCH)


@pytest.fixture(scope="session")
def ray_venv() -> Path:
    """A virtual environment with Ray."""
    return ensure(RAY)
