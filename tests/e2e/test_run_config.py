"""What one run asks for reaches its jobs: config and tags, on this machine and on a real Slurm, in one run too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from left.conftest import Left, left  # noqa: F401 - a fixture
from project_fixture import Project, failure_text
from waiting import eventually

import slurm_testcluster as slurm

PAYLOAD = """
    import json, os, sys
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        names = ("LEVEL", "DAGSTER_SLURM_PROFILE", "SLURM_MEM_PER_NODE")
        seen = {name: os.environ[name] for name in names if name in os.environ}
        pipes.report_asset_materialization(metadata={"args": json.dumps(sys.argv[1:]), **seen})
"""
TWO = """
    scripts:
      - payload: tells.py
        args: ["--epochs", "3"]
        env: {LEVEL: "1"}
        resources: {mem: 100M}
        assets: [{key: a}]
      - payload: tells.py
        assets: [{key: b, deps: [a]}]
"""
TAGS = {"dagster-slurm/resources.mem": "150M", "dagster-slurm/env.LEVEL": "7"}


def config(**ops: dict[str, Any]) -> dict[str, Any]:
    """Return the run config with that of ops."""
    return {"ops": {name: {"config": values} for name, values in ops.items()}}


def told(result: dg.ExecuteInProcessResult, key: str = "a") -> dict[str, Any]:
    """Return the metadata of an asset that a run made."""
    assert result.success, failure_text(result)
    (made,) = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key.path == [key]
    ]
    return {name: value.value for name, value in made.metadata.items()}


@pytest.fixture
def two(project: Project) -> Project:
    """Return a project of two scripts."""
    project.write("tells.py", PAYLOAD)
    project.scripts(TWO)
    return project


def test_config_of_an_op_changes_its_job_alone(two: Project, instance: dg.DagsterInstance) -> None:
    asked = {"args": ["--epochs", 20], "env": {"LEVEL": 2}, "resources": {"mem": "200M"}}
    result = two.run("local", instance=instance, run_config=config(a=asked))
    a, b = told(result, "a"), told(result, "b")
    assert (a["args"], a["LEVEL"]) == ('["--epochs", "20"]', "2")
    assert json.loads(a["job/asked_in_run"]) == asked
    assert (b["args"], "LEVEL" in b, "job/asked_in_run" in b) == ("[]", False, False)
    assert told(two.run("local", instance=instance))["args"] == '["--epochs", "3"]'


def test_tags_change_all_jobs_of_a_run(two: Project, instance: dg.DagsterInstance) -> None:
    result = two.run("local", instance=instance, tags=TAGS, run_config=config(a={"env": {"LEVEL": "8"}}))
    assert (told(result, "a")["LEVEL"], told(result, "b")["LEVEL"]) == ("8", "7")
    assert json.loads(told(result, "b")["job/asked_in_run"]) == {
        "env": {"LEVEL": "7"},
        "resources": {"mem": "150M"},
    }


@pytest.mark.parametrize(
    ("asked", "tags", "says"),
    [
        (
            {"resources": {"mem": "64 GB"}},
            {},
            "the run's config, `resources.mem`: '64 GB' is not a memory size",
        ),
        ({}, {"dagster-slurm/resources.memm": "1G"}, "did you mean `mem`?"),
        ({"profile": "locl"}, {}, "did you mean `local`?"),
    ],
)
def test_a_wrong_value_fails_the_step_before_anything_is_submitted(
    two: Project, instance: dg.DagsterInstance, asked: dict[str, Any], tags: dict[str, str], says: str
) -> None:
    two.scripts(TWO.replace("args: [", "op: {retry_policy: {max_retries: 2}}\n        args: [", 1))
    result = two.run("local", instance=instance, select=["a"], run_config=config(a=asked), tags=tags)
    assert not result.success
    assert says in failure_text(result)
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert not (two.root / ".dagster-slurm" / "runs").exists()


def test_python_takes_the_tags_and_keeps_its_own_config(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.write("../../../../tells.py", PAYLOAD)
    project.profile("other", "env: {FROM: other}")
    project.profile("third", "env: {FROM: third}")
    (project.defs.parent / "python.py").write_text(
        "import dagster as dg\n"
        "from dagster_slurm_components import ComputeResource\n"
        "class Own(dg.Config):\n    resources: str = 'mine'\n"
        "@dg.asset\n"
        "def a(context: dg.AssetExecutionContext, config: Own, compute: ComputeResource):\n"
        "    yield from compute.run(context=context, payload_path='../../../tells.py', args=[config.resources],\n"
        "        resources={'mem': '100M'}).get_results()\n"
        "@dg.asset\n"
        "def b(context: dg.AssetExecutionContext, bound: ComputeResource):\n"
        "    yield from bound.run(context=context, payload_path='../../../tells.py').get_results()\n"
        "resources = {'compute': ComputeResource(), 'bound': ComputeResource(profile='third')}\n"
        "defs = dg.Definitions(assets=[a, b], resources=resources)\n"
    )
    tags = {**TAGS, "dagster-slurm/profile": "other"}
    result = project.run("local", instance=instance, tags=tags, run_config=config(a={"resources": "yours"}))
    a, b = told(result, "a"), told(result, "b")
    assert (a["args"], a["LEVEL"], a["job/profile"]) == ('["yours"]', "7", "other")
    assert (b["LEVEL"], b["job/profile"]) == ("7", "third")
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    profiles = {name: value for name, value in run.tags.items() if name.startswith("slurm/profile")}
    assert profiles == {
        "slurm/profile": "local",
        "slurm/profile/other": "other",
        "slurm/profile/third": "third",
    }


def test_what_was_rendered_for_one_profile_is_not_run_in_another(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.write("tells.py", PAYLOAD)
    project.profile("local", "env: {WHERE: here}")
    project.profile("other", "env: {WHERE: there}")
    project.scripts(
        """
        scripts:
          - payload: tells.py
            args: ["{{ profile.env.WHERE }}"]
            assets: [{key: a}]
            profiles: {third: {args: [third]}}
        """
    )
    project.profile("third", "{}")
    assert told(project.run("local", instance=instance))["args"] == '["here"]'
    third = told(project.run("local", instance=instance, run_config=config(a={"profile": "third"})))
    assert third["args"] == '["third"]'
    assert told(project.run("local", instance=instance, run_config=config(a={"profile": "local"})))
    refused = failure_text(project.run("local", instance=instance, run_config=config(a={"profile": "other"})))
    assert (
        "defs.yaml:6:13: the run asks for the profile `other`, but this template was rendered for" in refused
    )
    assert told(project.run("other", instance=instance))["args"] == '["there"]'


def test_a_schedule_asks_by_config_and_tags(two: Project, instance: dg.DagsterInstance) -> None:
    job = dg.define_asset_job("nightly", selection="a", tags={"dagster-slurm/args": "[--epochs, 20]"})
    schedule = dg.ScheduleDefinition(
        job=job, cron_schedule="0 2 * * *", run_config=config(a={"env": {"LEVEL": "5"}}), tags=TAGS
    )
    with two.definitions() as definitions:
        whole = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job], schedules=[schedule]))
        with dg.build_schedule_context(instance=instance) as context:
            (request,) = whole.resolve_schedule_def(schedule.name).evaluate_tick(context).run_requests or ()
        result = whole.resolve_job_def("nightly").execute_in_process(
            instance=instance, run_config=request.run_config, tags=dict(request.tags), raise_on_error=False
        )
    assert (told(result)["args"], told(result)["LEVEL"]) == ('["--epochs", "20"]', "5")
    assert json.loads(told(result)["job/asked_in_run"])["resources"] == {"mem": "150M"}


def test_a_range_of_partitions(project: Project, instance: dg.DagsterInstance) -> None:
    project.write("tells.py", PAYLOAD)
    project.scripts(
        """
        scripts:
          - payload: tells.py
            array: {}
            op: {backfill_policy: {type: single_run}}
            assets: [{key: a, partitions_def: {type: static, partition_keys: [x, y, z]}}]
        """
    )
    ends = {"dagster/asset_partition_range_start": "x", "dagster/asset_partition_range_end": "z"}
    asked = {"args": ["{{ partition_key }}"], "array": {"max_parallel": 1}}
    result = project.run("local", instance=instance, run_config=config(a=asked), tags={**ends, **TAGS})
    assert result.success, failure_text(result)
    made = [event.materialization for event in result.get_asset_materialization_events()]
    seen = {each.partition: (each.metadata["args"].value, each.metadata["LEVEL"].value) for each in made}
    assert seen == {key: (f'["{key}"]', "7") for key in "xyz"}


def test_it_reaches_steps_that_are_threads_of_their_run(two: Project) -> None:
    (two.defs.parent / "executor.py").write_text(
        "import dagster as dg\nfrom dagster_slurm_components import slurm_executor\n"
        "defs = dg.Definitions(executor=slurm_executor)\n"
    )
    asked = json.dumps(config(a={"args": ["x"]}, b={"args": ["y"]}))
    two.dg("launch", "--assets", "*", "--config-json", asked)
    with dg.DagsterInstance.from_config(str(two.root / "dagster home")) as instance:
        for key, args in (("a", '["x"]'), ("b", '["y"]')):
            made = instance.get_latest_materialization_event(dg.AssetKey(key))
            assert made is not None
            assert made.asset_materialization is not None
            assert made.asset_materialization.metadata["args"].value == args


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_a_left_job_of_another_config_is_ended_first(left: Left) -> None:  # noqa: F811
    left.scripts("{args: [a, a], assets: [{key: a}], checks: [{name: ok, asset: a}]}")

    def job(**asked: Any) -> Any:
        left.run(run_config=config(a=asked))
        return left.observed("a")[-1].metadata

    first = job(env={"LEVEL": "1"})
    assert job(env={"LEVEL": "1"})["job/id"] == first["job/id"], (
        "the same is asked for: the job that is there"
    )
    second = job(env={"LEVEL": "2"})
    assert second["job/id"] != first["job/id"]
    assert left.states() == ["left"], "the first one is cancelled"
    assert json.loads(str(second["job/asked_in_run"].value)) == {"env": {"LEVEL": "2"}}
    left.open()
    left.reported()
    (made,) = left.made("a")
    assert made.metadata["job/asked_in_run"] == second["job/asked_in_run"]


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_a_failed_left_job_is_a_run_that_asks_for_the_same_again(left: Left) -> None:  # noqa: F811
    left.scripts("{args: [a, a], assets: [{key: a}], checks: [{name: ok, asset: a}]}")
    left.open("a", "fail-a")
    assert left.run(run_config=config(a={"env": {"X": "1"}}), tags=TAGS).success
    left.reported()
    (failed,) = left.runs(dg.DagsterRunStatus.FAILURE)
    assert failed.run_config == config(a={"env": {"X": "1"}})
    assert {name: value for name, value in failed.tags.items() if name.startswith("dagster-slurm/")} == TAGS


@pytest.mark.parametrize("left", ["local"], indirect=True)
def test_the_sensor_reports_a_job_that_was_left_in_another_profile(left: Left) -> None:  # noqa: F811
    left.scripts("{args: [a, a], assets: [{key: a}], checks: [{name: ok, asset: a}]}")
    left.project.profile("other", f"workdir: {left.project.root / 'elsewhere'}")
    result = left.run(run_config=config(a={"profile": "other"}))
    assert result.success, failure_text(result)
    left.open()

    def made() -> list[dg.AssetMaterialization]:
        left.tick()
        return left.made("a")

    (each,) = eventually(made, "the sensor reports it")
    assert (each.metadata["job/profile"].value, each.metadata["rows"].value) == ("other", 7)


@pytest.mark.slurm
@pytest.mark.parametrize("way", ["config", "tags"])
def test_memory_changes_the_job_on_slurm(
    two: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance, way: str
) -> None:
    two.staging(cluster)
    options: dict[str, Any] = {"tags": {"dagster-slurm/resources.mem": "64M"}}
    if way == "config":
        options = {"run_config": config(a={"resources": {"mem": "64M"}})}
    a = told(two.run("staging", instance=instance, select=["a"], **options))
    assert a["SLURM_MEM_PER_NODE"] == "64"
    assert a["job/memory_asked_mib"] == 64
    assert "#SBATCH --mem=64M\n" in (Path(str(a["job/run_directory"])) / "job.sh").read_text()
    as_written = told(two.run("staging", instance=instance, select=["a"]))
    assert as_written["SLURM_MEM_PER_NODE"] == "100"


@pytest.mark.slurm
def test_one_run_goes_from_this_machine_to_the_cluster(
    two: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance
) -> None:
    two.staging(cluster)
    result = two.run("local", instance=instance, run_config=config(b={"profile": "staging"}))
    a, b = told(result, "a"), told(result, "b")
    assert (a["job/profile"], a["DAGSTER_SLURM_PROFILE"], "SLURM_MEM_PER_NODE" in a) == (
        "local",
        "local",
        False,
    )
    assert (b["job/profile"], b["DAGSTER_SLURM_PROFILE"]) == ("staging", "staging")
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert (run.tags["slurm/profile"], run.tags["slurm/profile/staging"]) == ("local", "staging")
