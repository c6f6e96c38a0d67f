"""A step may run as many payloads as it likes, wherever Dagster gives it a context; each is a job of its own."""

# Without `from __future__ import annotations`: Dagster reads the types of these assets' arguments as they are.

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg
import pytest
from ownership.work import Work, everywhere

from dagster_slurm_components import ComputeResource

REPORT = """
from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    pipes.report_asset_materialization(metadata={"answer": 42})
"""


def job_of(completed: dg.PipesClientCompletedInvocation) -> str:
    return str(completed.metadata["job/id"].value)


def test_d1_calls_of_the_same_payload_are_jobs_of_their_own(work: Work, compute: ComputeResource) -> None:
    work.open()
    ids: list[str] = []

    @dg.asset
    def sweep(context: dg.AssetExecutionContext, compute: ComputeResource):
        for n in (1, 2, 2):
            done = compute.run(context=context, payload_path=work.act, args=["one"], extras={"n": n})
            ids.append(job_of(done))
        return dg.MaterializeResult()

    dg.materialize([sweep], resources={"compute": compute}, instance=work.instance)
    assert work.trace("end") == {"one": 3}
    assert len(set(ids)) == 3


def test_d1_calls_in_threads_are_jobs_of_their_own(work: Work, compute: ComputeResource) -> None:
    ids: list[str] = []

    @dg.asset
    def sweep(context: dg.AssetExecutionContext, compute: ComputeResource):
        def one(name: str) -> str:
            return job_of(compute.run(context=context, payload_path=work.act, args=[name]))

        with ThreadPoolExecutor(3) as pool:
            found = pool.map(one, "abc")
            try:
                for name in "abc":
                    work.begins(name)
            finally:
                work.open()
            ids.extend(found)
        return dg.MaterializeResult()

    dg.materialize([sweep], resources={"compute": compute}, instance=work.instance)
    assert work.trace("end") == {"a": 1, "b": 1, "c": 1}
    assert len(set(ids)) == 3


SWEEP = """
@dg.asset
def sweep(context: dg.AssetExecutionContext, compute: ComputeResource):
    done = [compute.run(context=context, payload_path=ACT, args=[str(n)]) for n in range(4)]
    ids = [str(each.metadata["job/id"].value) for each in done]
    return dg.MaterializeResult(metadata={"jobs": dg.MetadataValue.json(ids)})
"""


@everywhere
def test_d1_a_loop_that_was_killed_goes_on_where_it_was(work: Work) -> None:
    work.assets(SWEEP)
    work.open("0", "1")
    run = work.start()
    work.begins("2")
    before = work.jobs()
    run.kill()
    work.instance.report_run_failed(work.run(run.id))
    work.open()
    again = work.begin(parent=run.id)
    again.ends()
    assert work.trace("begin") == work.trace("end") == {"0": 1, "1": 1, "2": 1, "3": 1}
    event = work.instance.get_latest_materialization_event(dg.AssetKey("sweep"))
    assert event is not None
    assert event.asset_materialization is not None
    ids: Any = event.asset_materialization.metadata["jobs"].value
    assert sorted(ids) == work.jobs()
    assert set(ids[:3]) == set(before)


# One of each kind of definition; all run a payload that carries their name.


@dg.asset
def an_asset(context: dg.AssetExecutionContext, compute: ComputeResource, act: dg.ResourceParam[str]):
    yield from compute.run(context=context, payload_path=act, args=["asset"]).get_results()


@dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
def a_multi_asset(context: dg.AssetExecutionContext, compute: ComputeResource, act: dg.ResourceParam[str]):
    yield from compute.run(context=context, payload_path=act, args=["multi_asset"]).get_results()


@dg.asset_check(asset=an_asset)
def a_check(context: dg.AssetCheckExecutionContext, compute: ComputeResource, act: dg.ResourceParam[str]):
    done = compute.run(context=context, payload_path=act, args=["check"])
    return dg.AssetCheckResult(passed=bool(job_of(done)))


@dg.op
def an_op(context: dg.OpExecutionContext, compute: ComputeResource, act: dg.ResourceParam[str]) -> str:
    return job_of(compute.run(context=context, payload_path=act, args=["op"]))


@dg.job
def a_job() -> None:
    an_op()


def test_d23_all_kinds_of_definitions_run_payloads(work: Work, compute: ComputeResource) -> None:
    work.open()
    resources = {"compute": compute, "act": str(work.act)}
    definitions = dg.Definitions([an_asset, a_multi_asset], asset_checks=[a_check], resources=resources)
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=work.instance)
    assert {event.step_key for event in result.get_asset_materialization_events()} == {
        "an_asset",
        "a_multi_asset",
    }
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    done = a_job.execute_in_process(instance=work.instance, resources=resources)
    assert done.output_for_node("an_op") in work.jobs()
    assert work.trace("end") == dict.fromkeys(("asset", "multi_asset", "check", "op"), 1)


DIRECT: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "asset": (an_asset, dg.build_asset_context),
    "multi_asset": (a_multi_asset, dg.build_asset_context),
    "check": (a_check, dg.build_asset_check_context),
    "op": (an_op, dg.build_op_context),
}


@pytest.mark.parametrize("kind", DIRECT)
def test_d23_a_function_that_is_called_directly_runs_its_payload(
    work: Work, compute: ComputeResource, kind: str
) -> None:
    """As in a user's unit test."""
    work.open()
    function, context = DIRECT[kind]
    for _ in range(2):  # the second call is another test's, and runs the payload anew
        found = function(context(), compute=compute, act=str(work.act))
        results = [found] if kind in ("check", "op") else list(found)
        if kind == "op":
            assert results[0] in work.jobs()
        elif kind == "check":
            assert results[0].passed
        else:
            assert all(result.metadata["job/id"].value in work.jobs() for result in results)
            assert len(results) == (2 if kind == "multi_asset" else 1)
    assert work.trace("end") == {kind: 2}


def test_d23_a_direct_call_hands_over_what_the_payload_reports(work: Work, compute: ComputeResource) -> None:
    payload = work.file("report.py", REPORT)

    @dg.asset
    def answer(context: dg.AssetExecutionContext, compute: ComputeResource):
        return compute.run(context=context, payload_path=payload).get_materialize_result()

    result = answer(dg.build_asset_context(), compute=compute)
    assert result.metadata["answer"].value == 42
