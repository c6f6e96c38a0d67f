"""The sampler's files, as they import each other where they lie alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parents[1] / "dagster_slurm_components" / "jobs" / "sampler"


def module(name: str) -> ModuleType:
    """Return a file of the sampler as its neighbours import it."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
