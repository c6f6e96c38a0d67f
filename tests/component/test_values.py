"""Scripts hand on no values."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_slurm_components import ComputeResource


@pytest.mark.parametrize("can_subset", [False, True])
def test_a_python_asset_that_takes_a_scripts_value_is_told_what_to_do(project, can_subset):
    project.script(
        f"{{payload: train.py, can_subset: {str(can_subset).lower()}, assets: [{{key: models/a}}, {{key: b}}]}}"
    )

    @dg.asset(ins={"model": dg.AssetIn(["models", "a"])})
    def report(model: object) -> None:
        raise AssertionError

    @dg.asset
    def of_python() -> int:
        return 3

    @dg.asset(deps=["b"])
    def next_to_it(of_python: int) -> int:
        return of_python + 1

    rest = dg.Definitions(assets=[report, of_python, next_to_it], resources={"compute": ComputeResource()})
    job = dg.Definitions.merge(project.load(), rest).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_key == "report"
    told = str(failed.step_failure_data.user_failure_data or failed.step_failure_data.error)
    assert "`models/a` is made by a script, which hands on no value" in told
    assert "deps=['models/a']" in told
    assert result.output_for_node("next_to_it") == 4
