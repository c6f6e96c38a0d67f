"""What Dagster says of results that were stored."""

from __future__ import annotations

import time

import dagster as dg
import pytest

from dagster_slurm_components.pipes import claim
from dagster_slurm_components.pipes.claim import results_stored


def asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def made() -> None: ...

    return made


def test_results_are_found_however_much_other_steps_stored_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run with more than a hundred events the first steps' results were handed over once more."""
    monkeypatch.setattr(claim, "_PAGE", 3)
    began = time.time()
    assets = [asset(f"a{number}") for number in range(10)]
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = dg.materialize(assets, instance=instance).run_id
        found = [results_stored(instance, run_id, f"a{number}", began) for number in range(10)]
        assert found == [True] * 10
        assert not results_stored(instance, run_id, "another", began)
        assert not results_stored(instance, "another", "a0", began)
        assert not results_stored(instance, run_id, "a0", time.time() + 60), "of an earlier try"
