"""A mistake in a call from Python is told with the file and the line of the call, as one in YAML is."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def test_a_call_says_what_of_its_files_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data").mkdir()
    for name in ("x", "y.tmp", ".env"):
        (tmp_path / "data" / name).touch()

    @dg.asset
    def found(context: dg.AssetExecutionContext, compute: ComputeResource) -> Iterator[Any]:
        files = [str(tmp_path / "data")]
        completed = compute.run(context=context, command=["true"], files=files, exclude=["*.tmp"])
        yield from completed.get_results()

    assert dg.materialize([found], resources={"compute": ComputeResource(project=str(tmp_path))}).success
    sent = [path for path in (tmp_path / ".dagster-slurm").rglob("payload/**/data/*") if path.is_file()]
    assert [path.name for path in sent] == ["x"]
