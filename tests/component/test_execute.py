"""How scripts run: the profile is chosen then, and subclasses may step in. No job is started here."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg
import pytest
from dagster.components.testing.utils import component_defs

from dagster_slurm_components.component.script_component import SlurmScriptComponent
from dagster_slurm_components.pipes import client
from dagster_slurm_components.spec.resolve import ResolvedScript


@dataclass
class Completed:
    """What a run is made to give back."""

    results: list[object]

    def get_results(self) -> list[object]:
        return self.results


@pytest.fixture
def ran(monkeypatch) -> list[ResolvedScript]:
    """The scripts that were run; each makes all that is asked of it."""
    seen: list[ResolvedScript] = []

    def run_script(context, resolved, *, extras=None):
        seen.append(resolved)
        made = [dg.MaterializeResult(asset_key=key, metadata={"n": 1}) for key in context.selected_asset_keys]
        checks = [
            dg.AssetCheckResult(check_name=key.name, asset_key=key.asset_key, passed=True)
            for key in context.selected_asset_check_keys
        ]
        return Completed([*made, *checks])

    monkeypatch.setattr(client, "run_script", run_script)
    return seen


def materialize(defs: dg.Definitions, **options: object) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, raise_on_error=False, **options)


def test_results_and_checks(project, ran):
    project.script("{payload: train.py, assets: [{key: a}, {key: b}], checks: [{name: ok, asset: a}]}")
    result = materialize(project.load())
    assert result.success
    assert {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()} == {
        "a",
        "b",
    }
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("ok", True)
    assert [resolved.profile.name for resolved in ran] == ["local"]


def test_profile_is_chosen_when_it_runs(project, profile, ran, monkeypatch):
    profile("local", "{}")
    profile("big", "{env: {A: big, B: big}, resources: {partition: gpu}}")
    project.attributes(
        """
        defaults: {env: {B: default}}
        scripts:
          - payload: train.py
            env: {C: script}
            assets: [{key: a}]
            profiles: {big: {args: ["--all"]}}
        """
    )
    defs = project.load()
    materialize(defs)
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "big")
    materialize(defs)
    small, big = ran
    assert (small.script.env, small.script.args) == ({"B": "default", "C": "script"}, [])
    assert big.script.env == {"A": "big", "B": "default", "C": "script"}
    assert (big.script.args, big.script.resources.partition) == (["--all"], "gpu")
    assert big.position("resources", "partition").file.endswith("big.yaml")
    assert big.position("args").file.endswith("defs.yaml")


def test_launcher_gets_its_type_from_the_profile(project, profile, ran):
    profile("local", "{launcher: {type: torchrun}}")
    project.script("{payload: train.py, launcher: {nproc_per_node: 2}, assets: [{key: a}]}")
    materialize(project.load())
    assert (ran[0].script.launcher.type, ran[0].script.launcher.nproc_per_node) == ("torchrun", 2)


def test_a_wrong_profile_fails_the_step_once(project, profile, ran, monkeypatch):
    profile("local", "{}")
    project.script("{payload: train.py, assets: [{key: a}], op: {retry_policy: {max_retries: 3}}}")
    defs = project.load()
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "locl")
    result = materialize(defs)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "did you mean `local`?" in failed.step_failure_data.user_failure_data.description
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert ran == []


def test_subset(project, ran):
    project.script("{payload: train.py, can_subset: true, assets: [{key: a}, {key: b, skippable: true}]}")
    result = materialize(project.load(), asset_selection=[dg.AssetKey("b")])
    assert [event.asset_key.path for event in result.get_asset_materialization_events()] == [["b"]]


def test_partitions(project, ran):
    project.script(
        """
        payload: train.py
        op: {backfill_policy: {type: single_run}}
        assets: [{key: a, partitions_def: {type: static, partition_keys: [x, y]}}]
        """
    )
    result = materialize(project.load(), partition_key="y")
    (event,) = result.get_asset_materialization_events()
    assert event.partition == "y"


def test_a_partitioned_check_has_a_result_of_each_partition(project, ran, recwarn):
    project.script(
        """
        payload: train.py
        assets: [{key: a, partitions_def: &keys {type: static, partition_keys: [x, y]}}]
        checks: [{name: each, asset: a, partitions_def: *keys}, {name: newest, asset: a}]
        """
    )
    result = materialize(project.load(), partition_key="y")
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {name: check.partition for name, check in checks.items()} == {"each": "y", "newest": None}
    for check in checks.values():
        assert check.target_materialization_data.run_id == result.run_id
    assert not [told for told in recwarn if "partitions_def on an AssetCheckSpec" in str(told.message)]


class Loud(SlurmScriptComponent):
    """What a user may build on the component."""

    def get_asset_spec(self, spec, script):
        return spec.replace_attributes(group_name=f"from_{script.name}")

    def execute(self, context, script):
        context.log.info("before")
        for result in super().execute(context, script):
            yield result._replace(metadata={**result.metadata, "loud": True})


def test_subclass(project, ran, monkeypatch):
    monkeypatch.chdir(project.folder)
    component = Loud.from_attributes_dict(
        attributes={"scripts": [{"payload": "train.py", "assets": [{"key": "a"}]}]}
    )
    assert isinstance(component, Loud)
    defs = component_defs(component=component)
    (spec,) = defs.resolve_all_asset_specs()
    assert spec.group_name == "from_a"
    (event,) = materialize(defs).get_asset_materialization_events()
    assert event.materialization.metadata["loud"].value is True


@pytest.mark.parametrize(
    ("text", "chosen", "expected"),
    [
        ("{pool: gpus}", None, "gpus"),
        ("{pool: gpus}", "other", None),
        ("{}", None, None),
        ("{pool: \"{{ env('POOL_OF_TESTS', 'made') }}\"}", None, "made"),
        ("{pool: \"{{ env('NOT_SET_ANYWHERE') }}\"}", None, None),
        ("[broken", None, None),
    ],
)
def test_pool_of_the_profile(project, profile, monkeypatch, text, chosen, expected):
    profile("local", text)
    if chosen:
        monkeypatch.setenv("DAGSTER_SLURM_PROFILE", chosen)
    project.attributes(
        """
        scripts:
          - {payload: train.py, assets: [{key: a}]}
          - {payload: train.py, op: {pool: own}, assets: [{key: b}]}
        """
    )
    assert {name: made.op.pool for name, made in project.ops().items()} == {"a": expected, "b": "own"}


class Judge(SlurmScriptComponent):
    """A subclass that judges a check itself, after the payload."""

    def execute(self, context, script):
        for result in super().execute(context, script):
            if isinstance(result, dg.MaterializeResult):
                yield result
        yield dg.AssetCheckResult(asset_key="a", check_name="ok", passed=False)


def test_a_check_that_a_subclass_yields_is_not_missing(project, ran, monkeypatch):
    monkeypatch.chdir(project.folder)
    script = {"payload": "train.py", "assets": [{"key": "a"}], "checks": [{"name": "ok", "asset": "a"}]}
    defs = component_defs(component=Judge.from_attributes_dict(attributes={"scripts": [script]}))
    result = materialize(defs)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed


PARTED = """
    payload: train.py
    args: ["--day", "{{ partition_key }}", "{{ partition_window.start.strftime('%Y/%m') }}", "{{ env('HOME') }}"]
    env: {OUT: "/data/{{ partition_key }}", UNTIL: "{{ partition_window.end }}"}
    assets: [{key: a, partitions_def: {type: daily, start_date: "2026-02-01"}}]
    profiles: {local: {env: {OUT: "/home/{{ partition_key }}"}}}
"""


def test_templates_of_the_partition_wait_until_it_is_known(project, ran, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    project.script(PARTED)
    defs = project.load()
    assert materialize(defs, partition_key="2026-02-03").success
    assert materialize(defs, partition_key="2026-02-04").success
    assert [resolved.script.env for resolved in ran] == [
        {"OUT": "/home/2026-02-03", "UNTIL": "2026-02-04T00:00:00+00:00"},
        {"OUT": "/home/2026-02-04", "UNTIL": "2026-02-05T00:00:00+00:00"},
    ]
    assert ran[0].script.args == ["--day", "2026-02-03", "2026/02", "/home/me"]


@pytest.mark.parametrize("key", ["a b", 'it\'s "x"', "{{ env('HOME') }}", "$(id)", "Köln", "k" * 300])
def test_a_key_is_never_read_as_a_template_itself(project, ran, key):
    written = key.replace('"', '\\"').replace("{{", "{{ '{{' }}")
    project.script(
        f"""
        payload: train.py
        args: ["{{{{ partition_key }}}}", "{{{{ partition_keys | length }}}}"]
        assets: [{{key: a, partitions_def: {{type: static, partition_keys: ["{written}", other]}}}}]
        """
    )
    assert materialize(project.load(), partition_key=key).success
    assert ran[0].script.args == [key, "1"]


def test_a_range_has_keys_and_no_key(project, ran):
    project.script(
        """
        payload: train.py
        args: ["{{ partition_keys | join(',') }}", "{{ partition_key }}"]
        assets:
          - key: a
            partitions_def: {type: static, partition_keys: [x, y, z]}
        op: {backfill_policy: {type: single_run}}
        """
    )
    defs = project.load()
    tags = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "y"}
    result = materialize(defs, tags=tags)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    text = failure.step_failure_data.user_failure_data.description
    assert "the template can't be rendered: 'partition_key' is undefined" in text
    assert "this run is for a range: `partition_keys` is the list of its keys" in text
    assert ":3:" in text or "defs.yaml:" in text


def test_a_partition_can_t_shape_what_is_known_before_it(project):
    project.script("{payload: train.py, resources: {mem: '{{ partition_key }}'}, assets: [{key: a}]}")
    assert project.mistakes() == ["4: the partition is known only when the step runs"]
