"""Scripts that make nothing and check what others made."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_slurm_components import ComputeResource

CHECKS = """
payload: check.sh
checks:
  - {name: fresh, asset: lake/raw, blocking: true}
  - {name: sorted, asset: lake/other, additional_deps: [lake/raw]}
"""
REPORT = """
. pipes.sh
pipes_check lake/raw fresh true rows:int=3
pipes_check lake/other sorted false
"""


@dg.asset(key=["lake", "raw"])
def raw() -> None:
    """Make an asset that no script makes."""


@dg.asset(key=["lake", "other"])
def other() -> None:
    """Make another one."""


def run(project, instance: dg.DagsterInstance, selection: dg.AssetSelection | None = None):
    rest = dg.Definitions(assets=[raw, other], resources={"compute": ComputeResource()})
    definitions = dg.Definitions.merge(project.load(), rest)
    job = definitions.resolve_implicit_global_asset_job_def()
    if selection is not None:
        jobs = dg.Definitions.merge(
            definitions, dg.Definitions(jobs=[dg.define_asset_job("some", selection)])
        )
        job = jobs.resolve_job_def("some")
    return job.execute_in_process(instance=instance, raise_on_error=False)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def checking(project):
    project.write("check.sh", REPORT)
    project.script(CHECKS)
    return project


@pytest.mark.parametrize("alone", [False, True])
def test_checks_of_others_are_reported(checking, instance, alone):
    only = dg.AssetSelection.all_asset_checks()
    result = run(checking, instance, only if alone else None)
    assert result.success, result.all_events
    told = {
        (check.asset_key.to_user_string(), check.check_name): (check.passed, check.blocking)
        for check in result.get_asset_check_evaluations()
    }
    assert told == {("lake/raw", "fresh"): (True, True), ("lake/other", "sorted"): (False, False)}


def test_one_that_is_not_reported_is_told_with_its_line(checking, instance):
    checking.write("check.sh", ". pipes.sh\npipes_check lake/raw fresh true\n")
    result = run(checking, instance)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "did not report the check `sorted` of asset `lake/other`, declared at " in str(failed)


def test_figures_of_jobs_are_checked_by_dagsters_own_component(project, instance):
    project.script("{payload: train.py, assets: [{key: model}]}")
    for name, least in (("job/elapsed_s", 0), ("job/restarts", 5)):
        project.write(
            f"../{name.split('/')[1]}/defs.yaml",
            "type: dagster.components.lib.metadata_checks_component.MetadataChecksComponent\n"
            "attributes: {checks: [{key: model, params: "
            f"{{type: metadata_bounds, metadata_key: {name}, min_value: {least}, severity: WARN}}}}]}}\n",
        )
    compute = dg.Definitions(resources={"compute": ComputeResource()})
    job = dg.Definitions.merge(project.load(), compute).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success
    told = {
        check.check_name: (check.passed, check.severity) for check in result.get_asset_check_evaluations()
    }
    assert [passed for passed, _ in told.values()].count(True) == 1, told
    assert {severity for _, severity in told.values()} == {dg.AssetCheckSeverity.WARN}
