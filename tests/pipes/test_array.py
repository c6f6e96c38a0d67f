"""A script's array, in this process: what each partition is told, and what Dagster makes of its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.plan import execute_step
from project_fixture import Project

from dagster_slurm_components.pipes.arrays.call import Reports
from dagster_slurm_components.slurm.arrays import parse_max_array_size

REPORT = """
import json
import os

from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    window = pipes.partition_time_window
    told = {name: value for name, value in os.environ.items() if name.startswith("DAGSTER_SLURM_PARTITION")}
    for name in ("each", "all"):
        pipes.report_asset_check(name, passed=pipes.partition_key.endswith("c"), asset_key="first")
    pipes.report_asset_materialization(
        {
            "told": json.dumps(told),
            "span": pipes.partition_key_range["start"],
            "window": window["start"],
            "extras": json.dumps(sorted(pipes.extras)),
        },
        asset_key="first",
        data_version=f"v{pipes.partition_key}",
    )
"""
TWO = """
scripts:
  - payload: report.py
    array: {}
    assets:
      - key: first
        partitions_def: "{{ parts }}"
      - key: second
        deps: [first]
        partitions_def: "{{ parts }}"
      - key: third
        skippable: true
        partitions_def: "{{ parts }}"
    checks:
      - {name: each, asset: first, partitions_def: "{{ parts }}"}
      - {name: all, asset: first}
    op: {backfill_policy: {type: single_run}}
"""
PARTS = """
import dagster as dg


@dg.template_var
def parts():
    days = dg.DailyPartitionsDefinition("2026-02-01", end_date="2026-02-04")
    return dg.MultiPartitionsDefinition({"day": days, "place": dg.StaticPartitionsDefinition(["a b", "c"])})
"""


def test_dagster_is_one_whose_outputs_are_known() -> None:
    """Look at `pipes.asset_events` before another version is added here."""
    assert dg.__version__.startswith("1.13."), dg.__version__
    assert callable(execute_step._get_output_asset_events)  # whose tags `pipes.asset_events` writes, too


def made(result: dg.ExecuteInProcessResult, asset: str) -> Mapping[str, dg.AssetMaterialization]:
    found = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]
    assert len({each.partition for each in found}) == len(found)
    return {str(each.partition): each for each in found}


@pytest.mark.parametrize("arrays", [True, False])
def test_each_element_is_told_its_own_partition(
    project: Project, monkeypatch: pytest.MonkeyPatch, arrays: bool
) -> None:
    if not arrays:  # as where MaxArraySize is 0
        monkeypatch.setattr(
            "dagster_slurm_components.pipes.arrays.run.largest_array", lambda place, resolved: 0
        )
    project.write("report.py", REPORT)
    project.write("parts.py", PARTS)
    text = project.scripts(TWO).read_text()
    package = f"{project.package}.defs.work.parts"
    project.write(
        "defs.yaml", text.replace("attributes:", f"template_vars_module: {package}\nattributes:", 1)
    )
    ends = ("2026-02-01|a b", "2026-02-02|c")
    tags = dict(
        zip(("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"), ends, strict=True)
    )
    with project.definitions() as definitions:
        job = definitions.resolve_implicit_global_asset_job_def()
        instance = dg.DagsterInstance.ephemeral()
        result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=True)
    first = made(result, "first")
    days, places = ("2026-02-01", "2026-02-02"), ("a b", "c")
    assert set(first) == {f"{day}|{place}" for day in days for place in places}
    assert set(made(result, "second")) == set(first)
    assert not made(result, "third")
    for key, materialization in first.items():
        day, place = key.split("|")
        values: dict[str, Any] = {name: value.value for name, value in materialization.metadata.items()}
        told = json.loads(values["told"])
        assert told["DAGSTER_SLURM_PARTITION_KEY"] == key
        assert told["DAGSTER_SLURM_PARTITION_KEY_PLACE"] == place
        assert told["DAGSTER_SLURM_PARTITION_START"].startswith(day)
        assert "DAGSTER_SLURM_PARTITION_KEYS_FILE" not in told
        assert (values["span"], values["window"][:10], values["extras"]) == (key, day, '["asset_checks"]')
        assert materialization.tags is not None
        assert materialization.tags["dagster/data_version"] == f"v{key}"
        assert materialization.tags["dagster/partition/place"] == place
    versions = set()
    for key, materialization in made(result, "second").items():
        assert materialization.tags is not None
        assert materialization.tags["dagster/input_data_version/first"] == f"v{key}"
        assert "dagster/data_version_is_user_provided" not in materialization.tags
        versions.add(materialization.tags["dagster/data_version"])
    assert len(versions) == len(first)
    checks = result.get_asset_check_evaluations()
    assert {check.partition for check in checks if check.check_name == "all"} == {None}
    parts = [check for check in checks if check.partition is not None]
    # The check was reported before the materialization that it is about.
    assert {check.partition: check.passed for check in parts} == {key: key.endswith("c") for key in first}
    for check in parts:
        assert check.check_name == "each"
        about = instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("first"), asset_partitions=[check.partition]), limit=1
        ).records[0]
        assert check.target_materialization_data.storage_id == about.storage_id
    newest = instance.fetch_materializations(dg.AssetKey("first"), limit=1).records[0].storage_id
    for check in checks:
        assert check.partition or check.target_materialization_data.storage_id == newest
    ledgers = list(project.root.rglob("ledger"))
    assert len(ledgers) == (1 if arrays else len(first))
    # What Dagster made of the range, and what came of `first`, is what stands on each partition.
    event = instance.get_latest_materialization_event(dg.AssetKey("second"))
    assert event is not None


SOME = """
scripts:
  - command: [bash, -c, 'echo "$0" >>"{root}/ran"; [ ! -e "{root}/fail.$0" ]', "{{{{ partition_key }}}}"]
    array: {{max_parallel: 2}}
    assets: [{{key: parts, partitions_def: {{type: static, partition_keys: [a, b, c]}}}}]
    op: {{backfill_policy: {{type: single_run}}}}
"""


def test_without_arrays_a_re_execution_runs_those_that_failed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_slurm_components.pipes.arrays.run.largest_array", lambda place, resolved: 0)
    project.scripts(SOME.format(root=project.root))
    (project.root / "fail.b").touch()
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    with project.definitions() as definitions, dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        failed = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        assert not failed.success
        assert set(made(failed, "parts")) == {"a", "c"}
        (project.root / "fail.b").unlink()
        family = {"parent_run_id": failed.run_id, "root_run_id": failed.run_id}
        here = {"execution": {"config": {"in_process": {}}}}
        run = instance.create_run_for_job(job, tags=tags, run_config=here, **family)
        events = list(execute_run_iterator(InMemoryJob(job), run, instance))
    keys = [each.partition for each in events if each.is_step_materialization]
    assert keys == ["b"], [each.message for each in events]
    assert sorted((project.root / "ran").read_text().split()) == ["a", "b", "b", "c"]


def test_reports_are_told_as_they_come() -> None:
    reports = Reports()
    news = reports.news
    assert not news.done()
    reports.put("one")  # type: ignore[arg-type]
    reports.put("two")  # type: ignore[arg-type]
    assert news.done()
    assert list(reports.take()) == ["one", "two"]
    assert not reports.news.done()
    assert list(reports.take()) == []


@pytest.mark.parametrize(
    ("told", "size"), [("MaxArraySize            = 1001\n", 1001), ("X = 1", 1001), ("MaxArraySize = 0", 0)]
)
def test_how_large_an_array_may_be(told: str, size: int) -> None:
    assert parse_max_array_size(told) == size
