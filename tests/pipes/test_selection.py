"""Assets that a payload leaves out, their order, and runs of checks alone; real payloads in the local profile."""

from __future__ import annotations

import json
import textwrap

import dagster as dg
from project_fixture import Project, failure_text
from reports_fixture import SHELL, Result, checked, evaluations, log, made, materialized, messages, script

A = dg.AssetKey("a")


def test_d8_a_skippable_asset_is_skipped_and_downstream_too(
    project: Project, instance: dg.DagsterInstance
) -> None:
    messages(project, materialized("a"))
    project.scripts(
        f"""
        scripts:
          - {{{SHELL}, assets: [{{key: a}}, {{key: b, skippable: true}}, {{key: c}}]}}
          - {{command: [echo, down], assets: [{{key: below_b, deps: [b]}}]}}
          - {{command: [echo, down], assets: [{{key: below_a, deps: [a]}}]}}
        """
    )
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    assert sorted(made(result)) == ["a", "below_a", "c"]


def test_d8_nothing_reported_and_all_skippable(project: Project, instance: dg.DagsterInstance) -> None:
    script(project, "command: [echo, quiet], assets: [{key: a, skippable: true}]")
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    assert made(result) == []


def test_assets_are_handed_over_in_the_order_of_their_dependencies(
    project: Project, instance: dg.DagsterInstance
) -> None:
    """Dagster 1.13 fails a step that yields an asset before one that it depends on; `a` is reported by nobody."""
    messages(
        project,
        checked("b", "ok", True),
        *(materialized(key) for key in ("c", "b")),
    )
    script(
        project,
        f"{SHELL}, assets: [{{key: c, deps: [b]}}, {{key: b, deps: [a]}}, {{key: a}}], "
        "checks: [{name: ok, asset: b}]",
    )
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    assert made(result) == ["a", "b", "c"]
    (check,) = result.get_asset_check_evaluations()
    assert check.target_materialization_data is not None, "the check is bound to what this very step made"
    assert check.target_materialization_data.run_id == result.run_id


ALL_CHECKS = """
    import json
    from pathlib import Path
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        Path({folder!r}, "told.json").write_text(
            json.dumps([list(pipes.asset_keys), pipes.extras, pipes.provenance_by_asset_key])
        )
        for check in pipes.extras["asset_checks"]:
            pipes.report_asset_check(**check, passed=True)
        for key in pipes.asset_keys:
            pipes.report_asset_materialization(asset_key=key)
"""


def run_checks(project: Project, instance: dg.DagsterInstance, *checks: dg.AssetCheckKey) -> Result:
    with project.definitions() as definitions:
        chosen = dg.AssetSelection.checks(*checks)
        job = dg.define_asset_job("checks", selection=chosen)
        made = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).resolve_job_def("checks")
        return made.execute_in_process(instance=instance, raise_on_error=False)


def test_d16_a_run_of_a_check_alone(project: Project, instance: dg.DagsterInstance) -> None:
    project.write("payload.py", textwrap.dedent(ALL_CHECKS).format(folder=str(project.root)))
    script(
        project,
        "payload: payload.py, can_subset: true, assets: [{key: a}, {key: b}], "
        "checks: [{name: c, asset: a}, {name: d, asset: a}, {name: c, asset: b}]",
    )
    result = project.run("local", instance=instance)
    assert result.success, failure_text(result)
    keys, extras, provenance = json.loads((project.root / "told.json").read_text())
    assert keys == ["a", "b"]
    assert len(extras["asset_checks"]) == 3

    result = run_checks(project, instance, dg.AssetCheckKey(A, "d"))
    assert result.success, failure_text(result)
    assert made(result) == []
    assert evaluations(instance, result) == {"d": True}
    keys, extras, provenance = json.loads((project.root / "told.json").read_text())
    assert keys == ["a"]
    assert extras["asset_checks"] == [{"asset_key": "a", "check_name": "d"}]
    assert provenance["a"] is not None
    assert "asset `a` was left out: it is not selected in this run" in log(instance, result)


def test_d16_a_payload_that_reports_its_only_check_without_a_key(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.write(
        "payload.py",
        """
        from dagster_pipes import open_dagster_pipes

        with open_dagster_pipes() as pipes:
            pipes.report_asset_materialization(metadata={"n": 1})
            pipes.report_asset_check("c", passed=True)
        """,
    )
    script(
        project, "payload: payload.py, can_subset: true, assets: [{key: a}], checks: [{name: c, asset: a}]"
    )
    result = run_checks(project, instance, dg.AssetCheckKey(A, "c"))
    assert result.success, failure_text(result)
    assert (made(result), evaluations(instance, result)) == ([], {"c": True})
