"""Real frameworks for tests: virtual environments made on first use and kept between test runs.

PyTorch and Ray stay outside the environment that the tests run in, so that this one stays light. All
pytest-xdist workers share them; scripts/framework_venvs.py says where they lie.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.framework_venvs import NOTEBOOKS, RAY, TABLES, TORCH, CannotMakeError, Framework

REQUIRED = os.environ.get("DAGSTER_SLURM_REQUIRE_FRAMEWORKS") == "1"


def ensure_or_skip(framework: Framework) -> Path:
    """Return the environment's folder; where it can't be made, skip, or fail if it is required.

    DAGSTER_SLURM_REQUIRE_FRAMEWORKS=1 requires it.
    """
    try:
        return framework.ensure()
    except CannotMakeError as error:
        if REQUIRED:
            raise
        pytest.skip(f"no {framework.packages[0]} here: {error}")


@pytest.fixture(scope="session")
def torch_venv() -> Path:
    """A virtual environment with PyTorch."""
    return ensure_or_skip(TORCH)


@pytest.fixture(scope="session")
def ray_venv() -> Path:
    """A virtual environment with Ray."""
    return ensure_or_skip(RAY)


@pytest.fixture(scope="session")
def notebooks_venv() -> Path:
    """A virtual environment with what runs notebooks."""
    return ensure_or_skip(NOTEBOOKS)


@pytest.fixture(scope="session")
def tables_venv() -> Path:
    """A virtual environment with pandas, pyarrow and polars."""
    return ensure_or_skip(TABLES)
