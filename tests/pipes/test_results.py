"""`CompletedJob`: what it gives, and when it says that Dagster has stored it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from reports_fixture import checked, evaluations, materialized, messages, resources, run_python, script

from dagster_slurm_components import ComputeResource
from dagster_slurm_components.pipes.results import CompletedJob

A, B = dg.AssetKey("a"), dg.AssetKey("b")


def test_results_are_told_as_stored_when_dagster_has_them(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last result is in the event log, and no success of the step yet."""
    seen: list[tuple[bool, list[str]]] = []
    real = CompletedJob.get_results

    def get_results(self: CompletedJob, **options: bool) -> Any:
        before = self._stored

        def stored() -> None:
            events = [each.dagster_event_type for each in instance.all_logs(self._session.context.run.run_id)]
            seen.append((instance.get_latest_materialization_event(B) is not None, [str(e) for e in events]))
            if before:
                before()

        self._stored = stored
        return real(self, **options)

    monkeypatch.setattr(CompletedJob, "get_results", get_results)
    script(project, "command: [echo, hello], assets: [{key: a}, {key: b}]")
    assert project.run("local", instance=instance).success
    ((last_is_stored, events),) = seen
    assert last_is_stored
    assert not [event for event in events if "STEP_SUCCESS" in event]


def completed(project: Project, instance: dg.DagsterInstance, use: Any, **asset: Any) -> list[str]:
    """Run a payload in an asset that makes something of its results; return when `stored` was called."""
    told: list[str] = []

    @dg.multi_asset(**asset)
    def some(context: dg.AssetExecutionContext, compute: ComputeResource) -> Iterator[Any]:
        done = compute.run(
            context=context,
            command=["bash", "-c", f'cat "{project.defs}/lines.jsonl" >>"$DAGSTER_SLURM_MESSAGES"'],
        )
        done = CompletedJob(done._session, done.metadata, stored=lambda: told.append("stored"))
        yield from use(done, told)

    result = run_python(project, instance, some)
    assert result.success, failure_text(result)
    return told


def test_stored_is_called_once_and_only_for_get_results(
    project: Project, instance: dg.DagsterInstance
) -> None:
    messages(
        project,
        materialized("a", n=1),
        checked("a", "c", True),
    )

    def use(done: CompletedJob, told: list[str]) -> Iterator[Any]:
        single = done.get_materialize_result()
        assert [check.check_name for check in single.check_results] == ["c"]
        assert [check.check_name for check in done.check_results] == ["c"]
        assert "job/id" in done.metadata
        results = done.get_results()
        assert (len(results), results[0].asset_key, len(results[:1])) == (2, A, 1)
        assert told == []
        yield from results
        assert told == ["stored"]
        assert len(list(results)) == 2

    asset = {"specs": [dg.AssetSpec("a")], "check_specs": [dg.AssetCheckSpec("c", asset="a")]}
    assert completed(project, instance, use, **asset) == ["stored"]


def test_a_single_check_result(project: Project, instance: dg.DagsterInstance) -> None:
    messages(project, checked("a", "c", False))

    @dg.multi_asset_check(specs=[dg.AssetCheckSpec("c", asset="a")])
    def check(context: dg.AssetCheckExecutionContext, compute: ComputeResource) -> Iterator[Any]:
        command = ["bash", "-c", f'cat "{project.defs}/lines.jsonl" >>"$DAGSTER_SLURM_MESSAGES"']
        done = compute.run(context=context.op_execution_context, command=command)
        yield done.get_asset_check_result()

    defs = dg.Definitions(asset_checks=[check], resources=resources(project))
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(check))
    made = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("checks")
    result = made.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success, failure_text(result)
    assert evaluations(instance, result) == {"c": False}
