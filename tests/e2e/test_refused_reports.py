"""What a payload reports and Dagster does not take: named and left out, the exit status decides; a retry goes right."""

import json

import dagster as dg
import pytest
from project_fixture import Project, failure_text
from reports_fixture import SHELL, again, checked, log, made, materialized, messages, said, warnings

import slurm_testcluster as slurm

REFUSED = [
    said("report_progress", pct=5),
    materialized("x", n=0),
    materialized("a", n=1),
    materialized("a", n=2),
    checked("a", "z", True),
]
NAMED = [
    '"method": "report_progress"',
    "The payload's report of asset `x` was left out: this step does not declare it.",
    "The payload's report of check `z` of asset `a` was left out: this step does not declare it.",
    "The payload reported asset `a` 2 times; the last one counts.",
]
SCRIPTS = f"""
scripts:
  - {{{SHELL}, assets: [{{key: a}}]}}
  - {{payload: b.sh, assets: [{{key: b}}], checks: [{{name: c, asset: b}}]}}
"""


@pytest.mark.slurm
@pytest.mark.parametrize("profile", ["local", "staging"])
def test_refused_reports(
    project: Project,
    cluster: slurm.Cluster,
    instance: dg.DagsterInstance,
    profile: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project.staging(cluster)
    messages(project, *REFUSED)
    project.write("b.sh", f'cat "{project.root}/report" >>"$DAGSTER_SLURM_MESSAGES" 2>/dev/null; true\n')
    file = project.scripts(SCRIPTS)
    (line,) = [number for number, text in enumerate(file.read_text().splitlines(), 1) if "name: c" in text]
    first = project.run(profile, instance=instance)
    assert sorted(made(first)) == ["a", "b"], log(instance, first)
    (event,) = [
        each for each in first.get_asset_materialization_events() if each.asset_key == dg.AssetKey("a")
    ]
    assert event.materialization.metadata["n"].value == 2
    told = "\n".join(warnings(instance, first))
    assert [part for part in NAMED if part not in told] == []
    text = failure_text(first)
    for part in ("did not report the check `c` of asset `b`", f"defs.yaml:{line}:", "Run directory: /"):
        assert part in text
    assert [each.step_key for each in first.all_events if each.is_step_failure] == ["b"]

    (project.root / "report").write_text(json.dumps(checked("b", "c", True)) + "\n")
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", profile)
    events = again(project, instance, first)
    assert events[-1].event_type is dg.DagsterEventType.RUN_SUCCESS, [each.message for each in events]
    assert len(list(project.root.rglob("ledger"))) == 4, "each job was run anew"
