"""Which attempt a call is, in real runs on this machine: taken up, collected once, ended first, or made anew."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from dagster_slurm_components.resource import ComputeResource

PAYLOAD = """
import os, sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    with open(sys.argv[1], "a") as ran:
        print(os.environ.get("WHAT", "x"), file=ran)
    pipes.report_asset_materialization(metadata={"said": os.environ.get("WHAT", "x")})
"""


class World:
    """Assets ``raw`` -> ``model`` whose second one runs a job, and the runs of it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder = folder
        self.instance = instance
        (folder / "profiles").mkdir()
        (folder / "profiles" / "local.yaml").write_text(f"workdir: {folder}/work\n")
        (folder / "train.py").write_text(PAYLOAD)
        self.what = "x"
        self.fault: Exception | None = None

        @dg.asset
        def raw() -> None: ...

        @dg.asset(deps=[raw])
        def model(context: dg.AssetExecutionContext, compute: ComputeResource) -> Iterator[Any]:
            completed = compute.run(
                context=context,
                payload_path=folder / "train.py",
                args=[str(folder / "ran")],
                environment={"type": "current"},
                extra_env={"WHAT": self.what},
            )
            if self.fault:
                raise self.fault
            yield from completed.get_results()

        job = dg.define_asset_job("all", selection="*", executor_def=dg.in_process_executor)
        resources = {"compute": ComputeResource(profile="local", project=str(folder))}
        definitions = dg.Definitions(assets=[raw, model], jobs=[job], resources=resources)
        self.job = definitions.resolve_job_def("all")

    def run(self, *, parent: dg.DagsterRun | None = None, only: str | None = None) -> dg.DagsterRun:
        """Run all of it, or one asset, as a run of its own or as a re-execution."""
        selection = {dg.AssetKey(only)} if only else None
        job = self.job.get_subset(asset_selection=selection) if selection else self.job
        run = self.instance.create_run_for_job(
            job,
            asset_selection=selection,
            parent_run_id=parent.run_id if parent else None,
            root_run_id=(parent.root_run_id or parent.run_id) if parent else None,
        )
        execute_run(InMemoryJob(job), run, self.instance)
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    @property
    def ran(self) -> list[str]:
        """What each execution of the payload said."""
        file = self.folder / "ran"
        return file.read_text().split() if file.exists() else []

    def said(self, run: dg.DagsterRun) -> list[object]:
        """What Dagster has stored of the job's results in a run."""
        records = self.instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
        found = [record.asset_materialization for record in records]
        return [each.metadata["said"].value for each in found if each and "said" in each.metadata]

    def leases(self, root: dg.DagsterRun) -> list[tuple[str, int]]:
        files = sorted(self.folder.glob(f"work/runs/{root.run_id}/model/*/lease"))
        leases = [json.loads(file.read_text()) for file in files]
        return [(lease["state"], lease["epoch"]) for lease in leases]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


def test_a_job_that_did_its_work_before_its_step_failed_is_collected_by_the_retry(world: World) -> None:
    """The retry asked without end whether it may have the job that it had."""
    world.fault = ValueError("after the job")
    first = world.run()
    assert first.is_failure
    assert world.leases(first) == [("ended", 1)]
    world.fault = None
    again = world.run(parent=first, only="model")
    assert again.is_success
    assert world.ran == ["x"]
    assert world.said(again) == ["x"]
    assert world.leases(first) == [("collected", 2)]


def test_what_was_collected_is_never_handed_over_again(world: World) -> None:
    """D2: a repaired input changed nothing, for ever."""
    first = world.run()
    assert world.leases(first) == [("collected", 1)]
    again = world.run(parent=first, only="model")
    assert again.is_success
    assert world.ran == ["x", "x"]
    assert world.leases(first) == [("collected", 1), ("collected", 1)]


def test_what_read_older_inputs_is_not_taken_up(world: World) -> None:
    """D2: all steps were run anew, the job of the first run was not."""
    world.fault = ValueError("after the job")
    first = world.run()
    world.fault = None
    again = world.run(parent=first)
    assert again.is_success
    assert world.ran == ["x", "x"]
    assert world.leases(first) == [("cancelled", 2), ("collected", 1)]


def test_what_has_other_content_is_not_taken_up(world: World) -> None:
    world.fault = ValueError("after the job")
    first = world.run()
    world.fault, world.what = None, "y"
    again = world.run(parent=first, only="model")
    assert world.ran == ["x", "y"]
    assert world.said(again) == ["y"]
    assert world.leases(first) == [("cancelled", 2), ("collected", 1)]


def test_runs_of_their_own_have_nothing_in_common(world: World) -> None:
    world.fault = ValueError("after the job")
    first = world.run()
    world.fault = None
    other = world.run()
    assert world.ran == ["x", "x"]
    assert world.leases(first) == [("ended", 1)]
    assert world.leases(other) == [("collected", 1)]


def test_a_call_that_was_tried_again_in_the_same_run_takes_up_its_job(tmp_path: Path, world: World) -> None:
    tries: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def sweep(context: dg.AssetExecutionContext, compute: ComputeResource) -> dg.MaterializeResult:
        for number in range(2):
            compute.run(
                context=context,
                payload_path=tmp_path / "train.py",
                args=[str(tmp_path / "ran")],
                environment={"type": "current"},
                extra_env={"WHAT": str(number)},
            )
        tries.append(len(tries))
        if len(tries) < 2:
            raise ValueError("again")
        return dg.MaterializeResult()

    resources = {"compute": ComputeResource(profile="local", project=str(tmp_path))}
    assert dg.materialize([sweep], instance=world.instance, resources=resources).success
    assert tries == [0, 1]
    assert world.ran == ["0", "1"]
