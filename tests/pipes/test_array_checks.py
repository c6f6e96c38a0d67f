"""Checks that the elements of an array report, or do not: what a re-execution runs again, and that it goes right."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from reports_fixture import again, evaluations, made, said, warnings

SCRIPT = """
scripts:
  - payload: p.sh
    args: ["{{{{ partition_key }}}}"]
    array: {{}}
    assets: [{{key: parts, partitions_def: {{type: static, partition_keys: [a, b, c]}}}}]
    checks:
      - {{name: good, asset: parts, blocking: {blocking}}}
    op: {{backfill_policy: {{type: single_run}}}}
"""
KIND = dg.DagsterEventType.ASSET_CHECK_EVALUATION
TAGS = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
PAYLOAD = """
echo "$1" >>"{root}/ran"
cat "{root}/$1" >>"$DAGSTER_SLURM_MESSAGES" 2>/dev/null
true
"""


@dataclass(frozen=True)
class Parts:
    """A script for three partitions, each of which reports what stands in a file of its own."""

    project: Project
    instance: dg.DagsterInstance
    profile: str

    def report(self, key: str, passed: bool, severity: str = "ERROR") -> None:
        line = said(
            "report_asset_check", asset_key="parts", check_name="good", passed=passed, severity=severity
        )
        (self.project.root / key).write_text(f"{json.dumps(line)}\n")

    def run(self) -> dg.ExecuteInProcessResult:
        return self.project.run(self.profile, instance=self.instance, tags=TAGS)

    def again(self, first: dg.ExecuteInProcessResult) -> list[dg.DagsterEvent]:
        """Re-execute a run, after what its payloads read was mended."""
        return again(self.project, self.instance, first, tags=TAGS)

    @property
    def ran(self) -> Counter[str]:
        return Counter((self.project.root / "ran").read_text().split())


@pytest.fixture
def parts(
    request: pytest.FixtureRequest,
    project: Project,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> Parts:
    profile = "staging" if request.param == "slurm" else "local"
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", profile)
    if request.param == "slurm":
        project.staging(request.getfixturevalue("cluster"))
    if request.param == "jobs":  # as where MaxArraySize is 0
        monkeypatch.setattr(
            "dagster_slurm_components.pipes.arrays.run.largest_array", lambda place, resolved: 0
        )
    project.write("p.sh", PAYLOAD.format(root=project.root))
    return Parts(project, instance, profile)


def maps(instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult) -> list[str]:
    """Return what is said of each map of elements in a run's log."""
    found: list[Any] = []
    for entry in instance.all_logs(run.run_id):
        event = entry.dagster_event
        if event is not None and event.is_engine_event:
            found.append(event.engine_event_data.metadata)
        if event is not None and event.is_step_failure and event.step_failure_data.user_failure_data:
            found.append(event.step_failure_data.user_failure_data.metadata)
    drawn = [metadata["job/elements"].value for metadata in found if "job/elements" in metadata]
    return [each.rpartition("\n")[2] for each in drawn]


def everywhere(*more: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("parts", ["array", "jobs", *more], indirect=True)


@everywhere(pytest.param("slurm", marks=pytest.mark.slurm))
def test_an_element_that_does_not_report_a_check_has_failed_and_is_run_again(parts: Parts) -> None:
    file = parts.project.scripts(SCRIPT.format(blocking="false"))
    (line,) = [number for number, text in enumerate(file.read_text().splitlines(), 1) if "good" in text]
    parts.report("a", True)
    first = parts.run()
    told = failure_text(first)
    assert '2 of 3 partitions failed: "b", "c"' in told
    assert "did not report the check `good` of asset `parts`" in told
    assert f"defs.yaml:{line}:" in told
    assert "Run directory: " in told
    assert "Partition a:" not in told
    assert maps(parts.instance, first) == ["1 done, 2 FAILED"] * 2, "in the step's log and in its failure"
    assert made(first) == ["parts"] * 3, "what they did report is stored"
    assert evaluations(parts.instance, first) == {"good": False}
    for key in "bc":
        parts.report(key, True)
    events = parts.again(first)
    assert events[-1].event_type is dg.DagsterEventType.RUN_SUCCESS, [event.message for event in events]
    assert parts.ran == {"a": 1, "b": 2, "c": 2}


@everywhere()
@pytest.mark.parametrize("found", ["passed", "warned", "failed"])
def test_an_element_that_failed_a_blocking_check_is_run_again(parts: Parts, found: str) -> None:
    parts.project.scripts(SCRIPT.format(blocking="true"))
    for key in "abc":
        parts.report(key, key != "b")
    first = parts.run()
    assert "blocking asset check failed" in failure_text(first)
    parts.report("b", found == "passed", "ERROR" if found == "failed" else "WARN")
    events = parts.again(first)
    end = "RUN_FAILURE" if found == "failed" else "RUN_SUCCESS"
    assert events[-1].event_type.name == end, [event.message for event in events]
    (check,) = [event.asset_check_evaluation_data for event in events if event.event_type is KIND]
    failed = [] if found == "passed" else ["b"]
    assert (check.passed, check.metadata["partitions/failed"].value) == (not failed, failed)
    assert parts.ran == {"a": 1, "b": 2, "c": 1}


@everywhere()
def test_what_is_left_out_is_named_with_its_partition(parts: Parts) -> None:
    parts.project.scripts(SCRIPT.format(blocking="false"))
    for key in "abc":
        parts.report(key, True)
    with (parts.project.root / "b").open("a") as file:
        file.write('{"method": ["log"], "params": {}}\n')
    result = parts.run()
    assert result.success, failure_text(result)
    (warning,) = warnings(parts.instance, result)
    assert warning.startswith("[b] A line of the messages file was left out: ")
