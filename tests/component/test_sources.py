"""Where scripts come from: `scripts`, `include`, `matrix`, `defaults`, and their templates."""

from __future__ import annotations

import datetime

import dagster as dg
import pytest

from dagster_slurm_components import SlurmScriptComponent
from dagster_slurm_components.component.script_component import InvalidScriptsError


def test_included_files_start_at_their_own_folder(project):
    project.write("jobs/one.yaml", "payload: own.py\nassets: [{key: one}]\n")
    project.write("jobs/own.py", "")
    project.write(
        "jobs/deep/two.yaml",
        "payload: ../../train.py\nassets: [{key: two}]\n---\ncommand: [x]\nassets: [{key: three}]\n",
    )
    project.attributes(
        """
        include: ["jobs/*.yaml", "jobs/**/*.yaml"]
        scripts: [{payload: train.py, assets: [{key: zero}]}]
        """
    )
    specs = project.assets()
    assert set(specs) == {"zero", "one", "two", "three"}
    references = specs["three"].metadata["dagster/code_references"].code_references
    assert [(r.file_path, r.line_number) for r in references] == [
        (str(project.folder / "jobs/deep/two.yaml"), 4)
    ]


def test_defaults_lie_below_scripts(project):
    project.attributes(
        """
        defaults:
          launcher: {type: srun, mpi: pmix}
          op: {pool: shared, tags: {a: "1"}}
        scripts:
          - {payload: train.py, assets: [{key: one}]}
          - {payload: train.py, launcher: {type: bash}, op: {pool: own}, assets: [{key: two}]}
        """
    )
    ops = project.ops()
    assert [(op.op.pool, dict(op.op.tags)["a"]) for op in ops.values()] == [("shared", "1"), ("own", "1")]
    specs = project.assets()
    assert (specs["one"].kinds, specs["two"].kinds) == ({"python", "srun"}, {"python"})


def test_matrix(project):
    project.script(
        """
        payload: train.py
        name: "train_{{ matrix.model }}_{{ matrix.seed }}"
        args: ["--seed", "{{ matrix.seed }}"]
        assets: [{key: "models/{{ matrix.model }}/{{ matrix.seed }}", tags: {seed: "{{ matrix.seed }}"}}]
        matrix: {model: [small, large], seed: [1, 2]}
        """
    )
    assert set(project.ops()) == {"train_small_1", "train_small_2", "train_large_1", "train_large_2"}
    specs = project.assets()
    assert specs["models/large/2"].tags["seed"] == "2"
    assert len({spec.code_version for spec in specs.values()}) == 2, "only the seed shapes the results"


def test_a_variables_value_stays_text(project, monkeypatch):
    monkeypatch.setenv("ACCOUNT", "007")
    monkeypatch.setenv("GROUP", "1e3")
    project.script(
        """
        payload: train.py
        assets: [{key: a, group_name: "g_{{ env('GROUP') }}", description: "{{ env('ACCOUNT') }}"}]
        """
    )
    spec = project.assets()["a"]
    assert (spec.description, spec.group_name) == ("007", "g_1e3")


VARIABLES = """
import dagster as dg

@dg.template_var
def half():
    return 0.5

@dg.template_var
def keys(context):
    return lambda number: [f"k{each}" for each in range(number)]
"""


def test_templates_know_what_dagsters_components_know(project):
    project.write("variables.py", VARIABLES)
    project.script(
        """
        payload: train.py
        assets:
          - key: a
            description: "{{ context.project_root }} {{ project_root }}"
            metadata: {half: "{{ half }}"}
            partitions_def: {type: static, partition_keys: "{{ keys(2) }}"}
        """
    )
    with (project.folder / "defs.yaml").open("a") as stream:
        stream.write("template_vars_module: .variables\n")
    spec = project.assets()["a"]
    assert spec.description == f"{project.root.resolve()} {project.root.resolve()}"
    assert spec.metadata["half"] == 0.5
    assert spec.partitions_def.get_partition_keys() == ["k0", "k1"]


def test_text_without_templates_is_left_alone(project):
    project.script(
        """
        payload: train.py
        assets: [{key: a, description: "128", metadata: {n: "128", list: "[1, 2]"}}]
        """
    )
    spec = project.assets()["a"]
    assert spec.description == "128"
    assert (spec.metadata["n"], spec.metadata["list"]) == ("128", "[1, 2]")


def test_from_a_mapping_without_a_file(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    component = SlurmScriptComponent.from_attributes_dict(
        attributes={
            "scripts": [{"payload": "train.py", "assets": [{"key": "a"}], "resources": {"time": "01:00:00"}}]
        }
    )
    (script,) = component.scripts
    assert (script.name, script.folder) == ("a", project.folder)
    assert script.entry.script.data["resources"] == {"time": "01:00:00"}


def test_python_may_hand_over_dagsters_own_objects(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    days, eager = dg.DailyPartitionsDefinition("2026-03-28"), dg.AutomationCondition.eager()
    policy = dg.FreshnessPolicy.time_window(datetime.timedelta(hours=1))
    asset = {
        "key": dg.AssetKey(["tables", "a"]),
        "deps": [dg.AssetKey(["raw", "rows"])],
        "partitions_def": days,
        "automation_condition": eager,
        "freshness_policy": policy,
        "metadata": {"page": dg.MetadataValue.url("https://example.org")},
    }
    component = SlurmScriptComponent.from_attributes_dict(
        attributes={"scripts": [{"payload": "train.py", "assets": [asset]}]}
    )
    (spec,) = component.scripts[0].assets
    assert spec.key.path == ["tables", "a"]
    assert [dep.asset_key.path for dep in spec.deps] == [["raw", "rows"]]
    assert (spec.partitions_def, spec.automation_condition, spec.freshness_policy) == (days, eager, policy)
    assert spec.metadata["page"] == dg.MetadataValue.url("https://example.org")
    wrong = {"payload": "train.py", "assets": [{"key": "a", "partitions_def": eager}]}
    with pytest.raises(InvalidScriptsError, match=r"attributes:5:21: expected a PartitionsDefinition"):
        SlurmScriptComponent.from_attributes_dict(attributes={"scripts": [wrong]})


def test_unicode_and_windows_line_ends(project):
    text = "type: dagster_slurm_components.SlurmScriptComponent\r\nattributes:\r\n  scripts:\r\n"
    text += "    - {payload: 'größe;$(x).py', assets: [{key: a, description: 'Größe ✓'}]}\r\n"
    (project.folder / "größe;$(x).py").touch()
    (project.folder / "defs.yaml").write_bytes(text.encode())
    assert project.assets()["a"].description == "Größe ✓"
