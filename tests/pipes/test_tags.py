"""Tags of a run that several calls write at once."""

from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from dagster_slurm_components.pipes.records import JOB, PROFILE, tag_job, tag_run
from dagster_slurm_components.pipes.step import run_of, step_of


def test_many_calls_tag_their_run_at_once() -> None:
    """In memory, as of `dg.materialize`, sqlite says `database table is locked`: a hundred calls failed their step."""

    @dg.asset
    def sweep(context: dg.AssetExecutionContext) -> None:
        step = step_of(context)

        def call(number: int) -> None:
            tag_run(step, "local")
            tag_job(step, str(number))
            assert run_of(step.instance, step.run_id) is not None

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(call, range(64)))

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([sweep], instance=instance)
        run = run_of(instance, done.run_id)
    assert run is not None
    assert run.tags[PROFILE] == "local"
    jobs = {key: value for key, value in run.tags.items() if key.startswith(JOB)}
    assert set(jobs) == {JOB, f"{JOB}/sweep"}
    assert len(set(jobs.values())) == 2
