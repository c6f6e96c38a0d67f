"""A retry policy that the user wrote for the op is honoured; real payloads in the local profile."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project
from reports_fixture import retries, run_python, script

from dagster_slurm_components import ComputeResource

FAILS_ONCE = 'test -e "$MARK" || {{ touch "$MARK"; exit 1; }}'


@pytest.mark.parametrize(("policy", "succeeds"), [("{max_retries: 2}", True), (None, False)])
def test_d12_the_scripts_own_retry_policy_is_honoured(
    project: Project, instance: dg.DagsterInstance, policy: str | None, succeeds: bool
) -> None:
    project.write("payload.sh", FAILS_ONCE.format())
    op = f", op: {{retry_policy: {policy}}}" if policy else ""
    script(
        project, f"payload: payload.sh, env: {{MARK: '{project.root / 'mark'}'}}, assets: [{{key: a}}]{op}"
    )
    result = project.run("local", instance=instance)
    assert (result.success, retries(result)) == (succeeds, int(succeeds))


@pytest.mark.parametrize(("policy", "succeeds"), [(dg.RetryPolicy(max_retries=2), True), (None, False)])
def test_d12_and_that_of_an_asset_in_python(
    project: Project, instance: dg.DagsterInstance, policy: dg.RetryPolicy | None, succeeds: bool
) -> None:
    @dg.asset(retry_policy=policy)
    def a(context: dg.AssetExecutionContext, compute: ComputeResource) -> Iterator[Any]:
        mark = {"MARK": str(project.root / "mark")}
        command = ["bash", "-c", FAILS_ONCE.format()]
        yield from compute.run(context=context, command=command, extra_env=mark).get_results()

    result = run_python(project, instance, a)
    assert (result.success, retries(result)) == (succeeds, int(succeeds))


def test_d12_a_policy_that_is_not_the_ops_own_keeps_the_cautious_rule(
    project: Project, instance: dg.DagsterInstance
) -> None:
    script(project, "command: ['false'], assets: [{key: a}]")
    with project.definitions() as definitions:
        job = dg.define_asset_job("all", selection="*", op_retry_policy=dg.RetryPolicy(max_retries=3))
        made = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).resolve_job_def("all")
        result = made.execute_in_process(instance=instance, raise_on_error=False)
    assert (result.success, retries(result)) == (False, 0)
