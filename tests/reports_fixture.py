"""Payloads that report by hand, and what Dagster has of it."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from project_fixture import Project

from dagster_slurm_components import ComputeResource

Result = dg.ExecuteInProcessResult


def warnings(instance: dg.DagsterInstance, result: Result) -> list[str]:
    """What the step's log warns of."""
    return [each.user_message for each in instance.all_logs(result.run_id) if each.level >= 30]


def log(instance: dg.DagsterInstance, result: Result) -> str:
    return "\n".join(each.user_message for each in instance.all_logs(result.run_id))


def made(result: Result) -> list[str]:
    return [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()]


def stored_evaluations(instance: dg.DagsterInstance, result: Result) -> list[dg.AssetCheckEvaluation]:
    """Return the evaluations of asset checks that a run stored."""
    entries = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [each.asset_check_evaluation for each in entries if each.asset_check_evaluation]


def evaluations(instance: dg.DagsterInstance, result: Result) -> dict[str, bool]:
    """Return the asset checks that a run stored, and whether they passed."""
    return {each.check_name: each.passed for each in stored_evaluations(instance, result)}


def retries(result: Result) -> int:
    return sum(each.event_type_value == "STEP_UP_FOR_RETRY" for each in result.all_events)


def messages(project: Project, *lines: object, end: str = "") -> None:
    """Write a payload that puts these lines into the messages file; text is written as it is."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    project.write("lines.jsonl", "").write_text(text)
    project.write("payload.sh", "").write_text(f'cat lines.jsonl >>"$DAGSTER_SLURM_MESSAGES"\n{end}\n')


def again(
    project: Project, instance: dg.DagsterInstance, first: Result, **options: Any
) -> list[dg.DagsterEvent]:
    """Re-execute a run; with options of ``create_run_for_job``."""
    with project.definitions() as definitions:
        job = definitions.resolve_implicit_global_asset_job_def()
        family = {"parent_run_id": first.run_id, "root_run_id": first.run_id}
        here = {"execution": {"config": {"in_process": {}}}}
        run = instance.create_run_for_job(job, run_config=here, **family, **options)
        return list(execute_run_iterator(InMemoryJob(job), run, instance))


# What the payload says, in full, as the libraries of the protocol write it.


def said(method: str, **params: object) -> dict[str, object]:
    return {"__dagster_pipes_version": "0.1", "method": method, "params": params}


def materialized(key: str, **metadata: object) -> dict[str, object]:
    typed = {name: {"raw_value": value, "type": "__infer__"} for name, value in metadata.items()}
    return said("report_asset_materialization", asset_key=key, metadata=typed, data_version=None)


def checked(key: str, name: str, passed: bool, **metadata: object) -> dict[str, object]:
    typed = {name: {"raw_value": value, "type": "__infer__"} for name, value in metadata.items()}
    params = {"asset_key": key, "check_name": name, "passed": passed, "metadata": typed}
    return said("report_asset_check", severity="ERROR", **params)


def script(project: Project, text: str) -> None:
    project.scripts(f"scripts:\n  - {{{text}}}\n")


SHELL = "payload: payload.sh, files: [lines.jsonl]"


def resources(project: Project) -> dict[str, Any]:
    """Return the resources of assets in Python."""
    return {"compute": ComputeResource(profile="local", project=str(project.root))}


def run_python(
    project: Project, instance: dg.DagsterInstance, asset: dg.AssetsDefinition, **options: Any
) -> Result:
    """Materialize an asset whose function has a `ComputeResource`."""
    return dg.materialize(
        [asset], resources=resources(project), instance=instance, raise_on_error=False, **options
    )
