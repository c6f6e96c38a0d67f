"""A mistake in a call from Python is told with the file and the line of the call, as one in YAML is."""

from __future__ import annotations

import inspect
from pathlib import Path

import dagster as dg
import pytest

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.spec.problems import SpecError


def test_d13_the_line_of_the_call_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    frame = inspect.currentframe()
    assert frame is not None
    line = frame.f_lineno + 2
    with pytest.raises(SpecError) as caught:
        ComputeResource().run(context=dg.build_asset_context(), command=["true"], resources={"cpus": 4})
    (problem,) = caught.value.problems
    assert problem.position is not None
    assert (Path(problem.position.file), problem.position.line) == (Path(__file__), line)
    assert problem.hint == "did you mean `cpus_per_task`?"
