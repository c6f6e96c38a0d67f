"""What a script becomes in Dagster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from component.conftest import Project

from dagster_slurm_components.spec import check_script
from dagster_slurm_components.spec.files import Found, find_files

WHOLE = """
payload: train.py
description: Trains.
launcher: {type: torchrun, nproc_per_node: 2}
can_subset: true
op:
  description: The op.
  tags: {dagster/priority: "3"}
  pool: gpus
  retry_policy: {max_retries: 2, delay: 30, backoff: EXPONENTIAL, jitter: FULL}
  backfill_policy: {type: multi_run, max_partitions_per_run: 4}
assets:
  - key: models/digits
    deps: [datasets/digits, [raw, a]]
    description: The model.
    group_name: training
    owners: ["team:ml", ada@example.org]
    tags: {tier: gold, checked: true, version: 3}
    kinds: [pytorch]
    metadata: {dataset: digits, sizes: [1, 2]}
    code_version: "7"
    skippable: true
    automation_condition: "{{ dg.AutomationCondition.eager() }}"
    partitions_def: {type: daily, start_date: 2025-01-01, timezone: Europe/Vienna}
    freshness_policy: "{{ dg.FreshnessPolicy.cron('0 9 * * *', datetime.timedelta(hours=1)) }}"
  - key: models/report
    partitions_def: {type: daily, start_date: 2025-01-01, timezone: Europe/Vienna}
checks:
  - name: accurate
    asset: models/digits
    description: It is.
    blocking: true
    additional_deps: [datasets/test]
    metadata: {threshold: 0.9}
"""


def test_all_of_a_spec(project):
    project.script(WHOLE)
    spec = project.assets()["models/digits"]
    assert [dep.asset_key.path for dep in spec.deps] == [["datasets", "digits"], ["raw", "a"]]
    assert spec.description == "The model."
    assert spec.group_name == "training"
    assert spec.owners == ["team:ml", "ada@example.org"]
    assert {name: value for name, value in spec.tags.items() if "kind" not in name} == {
        "tier": "gold",
        "checked": "true",
        "version": "3",
    }
    assert spec.kinds == {"pytorch", "python", "torchrun"}
    assert spec.metadata["dataset"] == "digits"
    assert spec.metadata["sizes"] == [1, 2]
    assert spec.code_version == "7"
    assert spec.skippable
    assert spec.automation_condition is not None
    assert spec.automation_condition.get_label() == "eager"
    assert spec.partitions_def == dg.DailyPartitionsDefinition("2025-01-01", timezone="Europe/Vienna")
    assert isinstance(spec.freshness_policy, dg.FreshnessPolicy)


def test_metadata_of_definitions_holds_nothing_that_the_ui_shows_as_null(project):
    project.script(
        """
        payload: train.py
        assets: [{key: a, metadata: {n: .nan, deep: {list: [1.5, .inf]}, fine: 0.5, big: 1.0e+300}}]
        checks: [{name: c, asset: a, metadata: {worst: -.inf}}]
        """
    )
    metadata = project.assets()["a"].metadata
    assert {name: metadata[name] for name in ("n", "deep", "fine", "big")} == {
        "n": "nan",
        "deep": {"list": [1.5, "inf"]},
        "fine": 0.5,
        "big": 1e300,
    }
    (check,) = project.load().resolve_asset_graph().asset_check_keys
    assert project.load().resolve_asset_graph().get_check_spec(check).metadata["worst"] == "-inf"


def test_all_of_an_op(project):
    project.script(WHOLE)
    (made,) = project.ops().values()
    op = made.op
    assert op.name == "models__digits"
    assert op.description == "The op."
    assert op.tags["dagster/priority"] == "3"
    assert op.pool == "gpus"
    assert op.retry_policy == dg.RetryPolicy(2, 30, dg.Backoff.EXPONENTIAL, dg.Jitter.FULL)
    assert made.backfill_policy == dg.BackfillPolicy.multi_run(4)
    assert made.can_subset
    (check,) = made.check_specs
    assert (check.name, check.asset_key.path, check.blocking) == ("accurate", ["models", "digits"], True)
    assert [dep.asset_key.path for dep in check.additional_deps] == [["datasets", "test"]]
    assert check.description == "It is."
    assert check.metadata["threshold"] == 0.9
    assert check.metadata["dagster/code_references"].code_references[0].label == "YAML"


def test_least(project):
    project.script("{payload: train.py, description: Trains., assets: [{key: model}]}")
    (spec,) = project.assets().values()
    assert spec.description == "Trains."
    assert spec.kinds == {"python"}
    assert spec.group_name in (None, "default")
    (made,) = project.ops().values()
    assert (made.op.name, made.op.pool, made.op.retry_policy, made.can_subset) == ("model", None, None, False)
    assert made.backfill_policy is None


@pytest.mark.parametrize(
    ("own", "launcher", "expected"),
    [
        ("[a]", "{type: srun}", {"a", "python", "srun"}),
        ("[a, b]", "{type: srun}", {"a", "b", "srun"}),
        ("[a, b, c, d]", "{type: srun}", {"a", "b", "c", "d"}),
        ("[python]", "{type: bash}", {"python"}),
        ("[]", "{nproc_per_node: 2}", {"python"}),
    ],
)
def test_kinds_leave_the_users_alone(project, own, launcher, expected):
    project.script(f"{{payload: train.py, launcher: {launcher}, assets: [{{key: m, kinds: {own}}}]}}")
    (spec,) = project.assets().values()
    assert spec.kinds == expected


@pytest.mark.parametrize(
    ("script", "kinds"),
    [
        ("payload: train.py", {"python", "slurm"}),
        ("payload: train.sh", {"bash", "slurm"}),
        ("payload: train.R", {"r", "slurm"}),
        ("payload: train.jl, launcher: {type: srun}", {"julia", "slurm", "srun"}),
        ("payload: program", {"slurm"}),
        ("command: [gmx, mdrun]", {"slurm"}),
    ],
)
def test_kinds_name_the_language_and_slurm_where_it_runs(project, profile, monkeypatch, script, kinds):
    """It is the profile in which definitions are loaded that tells."""
    for name in ("train.sh", "train.R", "train.jl", "program"):
        project.write(name, "")
    profile("cluster", "scheduler: slurm\nworkdir: /scratch\n")
    project.script(f"{{{script}, assets: [{{key: m}}]}}")
    assert project.assets()["m"].kinds == kinds - {"slurm"}
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "cluster")
    assert project.assets()["m"].kinds == kinds


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        ("{type: hourly, start_date: 2025-01-01-00:00}", dg.HourlyPartitionsDefinition("2025-01-01-00:00")),
        (
            "{type: weekly, start_date: 2025-01-01, day_offset: 1}",
            dg.WeeklyPartitionsDefinition("2025-01-01", day_offset=1),
        ),
        ("{type: static, partition_keys: [a, b]}", dg.StaticPartitionsDefinition(["a", "b"])),
        (
            '{type: time_window, start_date: "2025", fmt: "%Y", cron_schedule: "0 0 1 1 *"}',
            dg.TimeWindowPartitionsDefinition("2025", "%Y", cron_schedule="0 0 1 1 *"),
        ),
        (
            "\"{{ dg.MonthlyPartitionsDefinition('2025-01-01') }}\"",
            dg.MonthlyPartitionsDefinition("2025-01-01"),
        ),
    ],
)
def test_partitions(project, partitions, expected):
    project.script(f"payload: train.py\nassets:\n  - key: m\n    partitions_def: {partitions}")
    assert project.assets()["m"].partitions_def == expected


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("assets: [{key: a/b}]", "a__b"),
        ("assets: [{key: a.b-c}]", "a_b_c"),
        ("name: 'train résumé;$(x)', assets: [{key: a}]", "train_r_sum_x_"),
        ("name: input, assets: [{key: a}]", "input_"),
        ("name: class, assets: [{key: a}]", "class_"),
        ("name: one, op: {name: two}, assets: [{key: a}]", "two"),
    ],
)
def test_op_names(project, script, name):
    project.script(f"{{payload: train.py, {script}}}")
    assert list(project.ops()) == [name]


def test_keys_that_look_alike_give_two_ops(project):
    project.attributes(
        """
        scripts:
          - {payload: train.py, assets: [{key: a.b}]}
          - {payload: train.py, assets: [{key: a-b}]}
        """
    )
    first, second = project.ops()
    assert first == "a_b"
    assert second.startswith("a_b_")


def test_code_references_lead_to_script_and_payload(project):
    project.attributes(
        """
        scripts:
          - payload: train.py
            assets: [{key: one}]
          - command: [uname]
            assets: [{key: two}]
        """
    )
    specs = project.assets()
    told = {
        key: [
            (r.file_path, r.line_number, r.label)
            for r in spec.metadata["dagster/code_references"].code_references
        ]
        for key, spec in specs.items()
    }
    yaml, payload = str(project.folder / "defs.yaml"), str(project.folder / "train.py")
    assert told == {"one": [(yaml, 5, "YAML"), (payload, 1, "payload")], "two": [(yaml, 7, "YAML")]}


def test_no_warning_of_dagsters_betas_is_ours(project, recwarn):
    project.script("{payload: train.py, assets: [{key: a}]}")
    project.load()
    assert not [warning for warning in recwarn if "dagster_slurm_components" in warning.filename]


def test_repository_of_several_components(project):
    project.script("{payload: train.py, assets: [{key: a/b}]}")
    other = project.root / "defs" / "other"
    other.mkdir()
    (other / "run.py").touch()
    (other / "defs.yaml").write_text(
        "type: dagster_slurm_components.SlurmScriptComponent\n"
        "attributes: {scripts: [{payload: run.py, name: a__b, assets: [{key: c, deps: [a/b]}]}]}\n"
        "---\n"
        "type: dagster_slurm_components.SlurmScriptComponent\n"
        "attributes: {scripts: [{payload: run.py, assets: [{key: d}]}]}\n"
    )
    defs = project.load()
    keys = defs.get_repository_def().asset_graph.get_all_asset_keys()
    assert {key.to_user_string() for key in keys} == {"a/b", "c", "d"}
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    lines = {
        key: spec.metadata["dagster/code_references"].code_references[0].line_number
        for key, spec in specs.items()
    }
    assert lines["c"] == 2
    assert lines["d"] == 5


def test_post_processing_and_empty_attributes(project):
    project.attributes(
        "scripts: [{payload: train.py, assets: [{key: a}]}]",
        more="""
        post_processing:
          assets: [{target: "*", attributes: {group_name: later}}]
        """,
    )
    assert project.assets()["a"].group_name == "later"
    project.write("defs.yaml", "type: dagster_slurm_components.SlurmScriptComponent\n")
    assert project.assets() == {}


def test_what_scripts_share_is_made_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a thousand scripts, to look for the same files and to make the same config again was a sixth of the load."""
    looked: list[str] = []

    def counted(folder: Path, pattern: str, exclude: Sequence[str] = ()) -> Found:
        looked.append(pattern)
        return find_files(folder, pattern, exclude)

    monkeypatch.setattr(check_script, "find_files", counted)
    project.write("data/a.csv", "1\n")
    project.script(
        "payload: train.py\nfiles: [data]\nmatrix: {n: [1, 2, 3]}\nassets: [{key: 'a/{{ matrix.n }}'}]"
    )
    ops = project.ops()
    assert sorted(looked) == ["data", "train.py"]
    assert len(ops) == 3
    assert len({id(each.op.config_schema.as_field()) for each in ops.values()}) == 1
