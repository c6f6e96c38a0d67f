"""What the executor takes from inside Dagster is there, in the versions for which it was seen to work."""

from __future__ import annotations

import builtins
import importlib
import sys
from typing import Any

import dagster as dg
import pytest

from dagster_slurm_components.errors import DagsterSlurmError

SEEN = ("1.13",)
"""Releases of Dagster with which `tests/ownership/test_executor.py` passed."""


def test_this_version_was_seen_to_work() -> None:
    assert dg.__version__.startswith(SEEN), (
        f"run tests/ownership/test_executor.py with dagster {dg.__version__}"
    )


def test_another_dagster_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "dagster_slurm_components.executor.dagster_parts"
    importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(module: str, *rest: Any, **more: Any) -> Any:
        if module == "dagster._core.execution.plan.active":
            raise ImportError("cannot import name 'ActiveExecution'")
        return real(module, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DagsterSlurmError, match="has other executors inside than") as raised:
        importlib.import_module(name)
    assert "leave `executor=slurm_executor` out" in str(raised.value)
