"""What a run says of its jobs: a line in its log and on the console, and tags that can be searched for."""

import os
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.pipes.records import (
    JOB,
    PROFILE,
    WORKER,
    tag_job,
    tag_run,
    tell,
    worker,
    written,
)
from dagster_slurm_components.pipes.step import step_of

OWNER = Owner("r1", "node-1", "pid:[4026531836]", 7, "12-boot")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.mark.parametrize("owner", [OWNER, replace(OWNER, pid_namespace=""), Owner.of("r1", os.getpid())])
def test_a_worker_is_read_back_as_it_was(owner: Owner) -> None:
    assert worker(dg.DagsterRun("job", run_id="r1", tags={WORKER: written(owner)})) == owner


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "r1 node - seven start",
        "node - 7 start",
        "r1 node - 7 start more",
        "r2 node - 7 start",
        '{"pid": 7}',
    ],
)
def test_what_is_no_worker_of_this_run_is_nobody(text: str) -> None:
    """A retry by Dagster's daemon begins with the tags of the run that it retries."""
    tags = {WORKER: text} if text else {}
    assert worker(dg.DagsterRun("job", run_id="r1", tags=tags)) is None


def run_with(instance: dg.DagsterInstance, **jobs: list[str]) -> dg.DagsterRun:
    """Run a step for each name, that tags these jobs; return the run."""

    def asset(name: str, ids: list[str]) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def made(context: dg.AssetExecutionContext) -> None:
            step = step_of(context)
            tag_run(step, "staging")
            for job_id in ids:
                tag_job(step, job_id)

        return made

    done = dg.materialize([asset(name, ids) for name, ids in jobs.items()], instance=instance)
    assert done.success
    found = instance.get_run_by_id(done.run_id)
    assert found is not None
    return found


def job_tags(run: dg.DagsterRun) -> dict[str, str]:
    return {key: value for key, value in run.tags.items() if key.startswith(JOB)}


def test_a_run_is_marked_as_one_of_a_profile_and_of_this_process(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_SLURM_PROFILE", "staging")
    run = run_with(instance, train=["12"])
    assert run.tags[PROFILE] == "staging"
    assert not [tag for tag in run.tags if tag.startswith(f"{PROFILE}/")]
    assert worker(run) == Owner.of(run.run_id, os.getpid())
    assert job_tags(run) == {JOB: "12"}


def test_a_run_with_jobs_in_another_profile_keeps_its_own_and_names_that(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_SLURM_PROFILE", raising=False)
    run = run_with(instance, train=["12"])
    assert (run.tags[PROFILE], run.tags[f"{PROFILE}/staging"]) == ("local", "staging")


def test_the_first_job_and_the_newest_of_each_other_step_are_tags(instance: dg.DagsterInstance) -> None:
    assert job_tags(run_with(instance, train=["12", "12"])) == {JOB: "12"}
    assert job_tags(run_with(instance, train=["12", "13", "14"])) == {JOB: "12", f"{JOB}/train": "14"}


def test_a_run_of_many_jobs_gets_few_tags(instance: dg.DagsterInstance) -> None:
    run = run_with(instance, **{f"step{number}": [str(number)] for number in range(30)})
    assert len(job_tags(run)) == 20


def test_a_line_stands_in_the_log_with_its_metadata_and_on_the_console(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    @dg.asset
    def train(context: dg.AssetExecutionContext) -> None:
        tell(step_of(context), "Job 12 submitted", {"job/id": "12"})

    done = dg.materialize([train], instance=instance)
    found = [
        entry
        for entry in instance.all_logs(done.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        if entry.dagster_event and entry.dagster_event.message == "Job 12 submitted"
    ]
    (event,) = [entry.dagster_event for entry in found]
    assert event is not None
    assert event.step_key == "train"
    assert event.engine_event_data.metadata == {"job/id": dg.MetadataValue.text("12")}
    assert "Job 12 submitted" in capfd.readouterr().err


def test_a_function_that_is_called_directly_has_no_run_to_mark() -> None:
    @dg.asset
    def train(context: dg.AssetExecutionContext) -> None:
        step = step_of(context)
        tag_run(step, "staging")
        tag_job(step, "12")
        tell(step, "Job 12 submitted")

    train(dg.build_asset_context())


def test_a_retry_s_own_job_is_told_beside_its_parent_s(instance: dg.DagsterInstance) -> None:
    parent = run_with(instance, train=["12"])
    retry = create_run_for_test(
        instance, job_name="a", tags=dict(parent.tags), parent_run_id=parent.run_id, root_run_id=parent.run_id
    )

    @dg.op
    def train(context: dg.OpExecutionContext) -> None:
        tag_job(replace(step_of(context), run=retry, run_id=retry.run_id), "13")

    @dg.job
    def alone() -> None:
        train()

    assert alone.execute_in_process(instance=instance).success
    found = instance.get_run_by_id(retry.run_id)
    assert found is not None
    assert job_tags(found) == {JOB: "13"}
