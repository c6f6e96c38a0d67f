"""What Dagster says of a step: its run's family, what made its inputs, and the numbers of its calls. In real runs."""

import gc
import os
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run

from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.pipes.context import AnyContext
from dagster_slurm_components.pipes.step import Step, made_by, next_calls, step_of

RAW, MODEL, REPORT = "raw", "model", "report"


class Chain:
    """Assets ``raw`` -> ``model`` -> ``report``, whose steps are kept as they see themselves."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.fails: set[str] = set()
        self.steps: dict[str, list[Step]] = defaultdict(list)
        names = [(RAW, []), (MODEL, [RAW]), (REPORT, [MODEL]), ("other", [])]
        assets = [self._asset(name, deps) for name, deps in names]
        job = dg.define_asset_job("chain", selection="*", executor_def=dg.in_process_executor)
        self.job = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def("chain")

    def _asset(self, name: str, deps: Sequence[str]) -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=list(deps))
        def asset(context: dg.AssetExecutionContext) -> None:
            self.steps[name].append(step_of(context))
            if name in self.fails:
                raise ValueError("made to fail")

        return asset

    def run(
        self,
        *,
        fails: str = "",
        parent: dg.DagsterRun | None = None,
        steps: Sequence[str] | None = None,
        assets: Sequence[str] | None = None,
    ) -> dg.DagsterRun:
        """Run all of it, some steps of it, or some assets of it, as a run of its own or as a re-execution."""
        self.fails = {fails}
        selection = {dg.AssetKey(name) for name in assets} if assets else None
        job = self.job.get_subset(asset_selection=selection) if selection else self.job
        plan = create_execution_plan(job, step_keys_to_execute=steps) if steps else None
        run = self.instance.create_run_for_job(
            job,
            execution_plan=plan,
            asset_selection=selection,
            parent_run_id=parent.run_id if parent else None,
            root_run_id=(parent.root_run_id or parent.run_id) if parent else None,
        )
        done = execute_run(InMemoryJob(job), run, self.instance)
        assert done.success == (not fails)
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    def made_by(self, run: dg.DagsterRun, *steps: str) -> dict[str, str]:
        return made_by(self.instance, run, frozenset(steps))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """One in memory: it is asked as any other, and made faster."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def chain(instance: dg.DagsterInstance) -> Chain:
    return Chain(instance)


class TestMadeBy:
    def test_a_first_run_makes_its_own_inputs(self, chain: Chain) -> None:
        run = chain.run()
        assert chain.steps[RAW][0].upstream == {}
        assert chain.steps[MODEL][0].upstream == {RAW: run.run_id}
        assert chain.steps[REPORT][0].upstream == {MODEL: run.run_id}

    def test_from_failure_reads_what_the_first_run_made(self, chain: Chain) -> None:
        first = chain.run(fails=MODEL)
        again = chain.run(parent=first, steps=[MODEL, REPORT])
        assert len(chain.steps[RAW]) == 1
        assert chain.steps[MODEL][1].upstream == {RAW: first.run_id}
        assert chain.steps[REPORT][0].upstream == {MODEL: again.run_id}
        assert chain.made_by(again, RAW, MODEL, REPORT, "other") == {
            RAW: first.run_id,
            MODEL: again.run_id,
            REPORT: again.run_id,
            "other": first.run_id,
        }

    def test_all_steps_read_what_is_made_anew(self, chain: Chain) -> None:
        """D2: `raw` was repaired, and the job that had read the old one was taken up all the same."""
        first = chain.run(fails=MODEL)
        again = chain.run(parent=first)
        assert chain.steps[MODEL][0].upstream == {RAW: first.run_id}
        assert chain.steps[MODEL][1].upstream == {RAW: again.run_id}

    def test_a_selection_of_assets_reads_what_the_first_run_made(self, chain: Chain) -> None:
        first = chain.run(fails=MODEL)
        again = chain.run(parent=first, assets=[MODEL])
        assert chain.made_by(again, RAW, MODEL) == {RAW: first.run_id, MODEL: again.run_id}
        # As the webserver launches it: what is executed stands in the plan alone.
        launched = again._replace(step_keys_to_execute=None)
        assert chain.made_by(launched, RAW, MODEL) == {RAW: first.run_id, MODEL: again.run_id}
        # Without a plan nothing is ruled out: what may have been made anew is not taken up.
        unplanned = launched._replace(execution_plan_snapshot_id=None)
        assert chain.made_by(unplanned, RAW) == {RAW: again.run_id}

    def test_a_selection_of_assets_with_their_inputs_makes_these_anew(self, chain: Chain) -> None:
        first = chain.run(fails=MODEL)
        again = chain.run(parent=first, assets=[RAW, MODEL])
        assert chain.made_by(again, RAW, MODEL) == {RAW: again.run_id, MODEL: again.run_id}
        assert chain.steps[MODEL][1].upstream == {RAW: again.run_id}

    def test_of_a_long_family_the_nearest_counts(self, chain: Chain) -> None:
        first = chain.run(fails=MODEL)
        second = chain.run(parent=first, fails=MODEL)
        third = chain.run(parent=second, steps=[MODEL, REPORT], fails=REPORT)
        fourth = chain.run(parent=third, steps=[REPORT])
        assert chain.made_by(fourth, RAW, MODEL, REPORT) == {
            RAW: second.run_id,
            MODEL: third.run_id,
            REPORT: fourth.run_id,
        }
        sibling = chain.run(parent=first, steps=[MODEL, REPORT])
        assert chain.made_by(sibling, RAW) == {RAW: first.run_id}, "of another line of the family"

    def test_what_no_run_of_the_family_made_is_not_told(self, chain: Chain) -> None:
        alone = chain.run(assets=[MODEL])
        assert chain.made_by(alone, RAW) == {}
        assert chain.made_by(alone) == {}

    def test_steps_of_dynamic_outputs_are_made_anew_too(self, instance: dg.DagsterInstance) -> None:
        """What collects them took up the job that had read the old ones: a plan has no key of theirs."""
        seen: list[Step] = []

        @dg.op(out=dg.DynamicOut())
        def numbers() -> Iterator[dg.DynamicOutput[int]]:
            yield from (dg.DynamicOutput(number, mapping_key=f"n{number}") for number in range(2))

        @dg.op
        def work(number: int) -> int:
            return number

        @dg.op
        def total(context: dg.OpExecutionContext, numbers: list[int]) -> None:
            seen.append(step_of(context))

        @dg.job(executor_def=dg.in_process_executor)
        def mapped() -> None:
            total(numbers().map(work).collect())

        def run(parent: str | None = None, steps: Sequence[str] | None = None) -> dg.DagsterRun:
            plan = create_execution_plan(mapped, step_keys_to_execute=steps)
            made = instance.create_run_for_job(
                mapped, execution_plan=plan, parent_run_id=parent, root_run_id=parent
            )
            assert execute_run(InMemoryJob(mapped), made, instance).success
            return made

        first = run()
        assert seen[0].upstream == {"work[n0]": first.run_id, "work[n1]": first.run_id}
        again = run(first.run_id)
        assert seen[1].upstream == {"work[n0]": again.run_id, "work[n1]": again.run_id}
        one = first._replace(
            run_id="one", parent_run_id=first.run_id, step_keys_to_execute=["work[n1]", "total"]
        )
        found = made_by(instance, one, frozenset({"work[n0]", "work[n1]"}))
        assert found == {"work[n0]": first.run_id, "work[n1]": "one"}

    def test_a_parent_that_was_deleted_ends_the_family(
        self, chain: Chain, instance: dg.DagsterInstance
    ) -> None:
        first = chain.run(fails=MODEL)
        again = chain.run(parent=first, steps=[MODEL])
        instance.delete_run(first.run_id)
        assert chain.made_by(again, RAW, MODEL) == {MODEL: again.run_id}


class TestStep:
    def test_all_runs_of_a_family_share_their_jobs_folders(self, chain: Chain) -> None:
        first = chain.run(fails=MODEL)
        second = chain.run(parent=first, steps=[MODEL, REPORT], fails=MODEL)
        third = chain.run(parent=second, assets=[MODEL])
        steps = chain.steps[MODEL]
        assert [step.run_id for step in steps] == [first.run_id, second.run_id, third.run_id]
        assert {step.root_run_id for step in steps} == {first.run_id}
        assert {step.identity(2) for step in steps} == {JobIdentity(first.run_id, MODEL, None, 0, 2)}
        assert [step.may_have_been_tried for step in steps] == [False, True, True]
        assert {step.owner for step in steps} == {Owner.of(step.run_id, os.getpid()) for step in steps}
        assert not any(step.step_worker for step in steps)

    def test_another_try_of_the_same_run_may_find_a_job(self, instance: dg.DagsterInstance) -> None:
        tried: list[bool] = []

        @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
        def flaky(context: dg.AssetExecutionContext) -> None:
            tried.append(step_of(context).may_have_been_tried)
            if len(tried) < 3:
                raise ValueError("again")

        assert dg.materialize([flaky], instance=instance).success
        assert tried == [False, True, True]

    def test_the_partition_or_the_range_of_them(self, instance: dg.DagsterInstance) -> None:
        partitions = dg.StaticPartitionsDefinition(["a", "b|c", "d"])
        seen: list[str | None] = []

        @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
        def parted(context: dg.AssetExecutionContext) -> None:
            seen.append(step_of(context).partition)

        assert dg.materialize([parted], instance=instance, partition_key="b|c").success
        tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "d"}
        assert dg.materialize([parted], instance=instance, tags=tags).success
        assert seen == ["b|c", "a...d"]

    def test_mapped_steps_have_keys_of_their_own(self, instance: dg.DagsterInstance) -> None:
        seen: list[str] = []

        @dg.op(out=dg.DynamicOut())
        def numbers() -> Iterator[dg.DynamicOutput[int]]:
            for number in range(2):
                yield dg.DynamicOutput(number, mapping_key=str(number))

        @dg.op
        def work(context: dg.OpExecutionContext, number: int) -> None:
            seen.append(step_of(context).key)

        @dg.job
        def mapped() -> None:
            numbers().map(work)

        assert mapped.execute_in_process(instance=instance).success
        assert sorted(seen) == ["work[0]", "work[1]"]


class TestCallNumbers:
    def test_calls_of_a_step_are_numbered_in_their_order(self, instance: dg.DagsterInstance) -> None:
        """D1: a second call returned the first one's result."""
        found: list[tuple[Step, range]] = []

        @dg.asset
        def sweep(context: dg.AssetExecutionContext) -> None:
            found.extend(next_calls(context) for _ in range(2))
            found.append(next_calls(context, count=3))
            found.append(next_calls(context.op_execution_context))

        @dg.asset
        def another(context: dg.AssetExecutionContext) -> None:
            found.append(next_calls(context))

        assert dg.materialize([sweep, another], instance=instance).success
        steps = [step for step, _ in found if step.key == "sweep"]
        assert [list(numbers) for step, numbers in found if step.key == "sweep"] == [[0], [1], [2, 3, 4], [5]]
        assert all(step is steps[0] for step in steps), "an interrupt is meant for all its calls"
        assert [list(numbers) for step, numbers in found if step.key == "another"] == [[0]]

    def test_each_try_counts_anew(self, instance: dg.DagsterInstance) -> None:
        found: list[list[int]] = []

        @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
        def sweep(context: dg.AssetExecutionContext) -> None:
            found.extend(list(next_calls(context)[1]) for _ in range(2))
            if len(found) < 4:
                raise ValueError("again")

        assert dg.materialize([sweep], instance=instance).success
        assert found == [[0], [1], [0], [1]]

    def test_threads_of_a_step_never_share_a_number(self, instance: dg.DagsterInstance) -> None:
        found: list[int] = []

        @dg.asset
        def sweep(context: dg.AssetExecutionContext) -> None:
            with ThreadPoolExecutor(8) as pool:
                found.extend(number for _, (number,) in pool.map(lambda _: next_calls(context), range(50)))

        assert dg.materialize([sweep], instance=instance).success
        assert sorted(found) == list(range(50))

    def test_ops_and_checks_have_calls_too(self, instance: dg.DagsterInstance) -> None:
        """D23: a check's context has not what an asset's has."""
        found: list[tuple[str, list[int]]] = []

        def note(context: AnyContext) -> None:
            step, numbers = next_calls(context)
            found.append((step.key, list(numbers)))

        @dg.asset
        def model() -> None: ...

        @dg.asset_check(asset=model)
        def good(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            note(context)
            note(context)
            return dg.AssetCheckResult(passed=True)

        @dg.op
        def work(context: dg.OpExecutionContext) -> None:
            note(context)

        @dg.job
        def alone() -> None:
            work()

        definitions = dg.Definitions(assets=[model], asset_checks=[good])
        job = definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance).success
        assert alone.execute_in_process(instance=instance).success
        assert found == [("model_good", [0]), ("model_good", [1]), ("work", [0])]

    @pytest.mark.parametrize("build", [dg.build_asset_context, dg.build_op_context])
    def test_a_function_that_is_called_directly_has_calls_and_no_run(self, build: object) -> None:
        found: list[tuple[Step, range]] = []
        with dg.DagsterInstance.ephemeral() as instance:

            @dg.asset
            def asset(context: dg.AssetExecutionContext) -> None:
                found.extend(next_calls(context) for _ in range(2))

            @dg.op
            def op(context: dg.OpExecutionContext) -> None:
                found.extend(next_calls(context) for _ in range(2))

            function = asset if build is dg.build_asset_context else op
            for _ in range(2):
                function(build(instance=instance))  # type: ignore[operator]
        assert [list(numbers) for _, numbers in found] == [[0], [1], [0], [1]]
        first, again, second, _ = (step for step, _ in found)
        assert first is again
        assert first.root_run_id != second.root_run_id, "each has folders of its own"
        assert (first.run, first.upstream, first.may_have_been_tried) == (None, {}, False)

    def test_what_has_ended_is_forgotten(self, instance: dg.DagsterInstance) -> None:
        """A run's only process may execute a thousand steps."""
        found: list[weakref.ref[Step]] = []

        @dg.asset
        def sweep(context: dg.AssetExecutionContext) -> None:
            found.append(weakref.ref(next_calls(context)[0]))

        for _ in range(3):
            assert dg.materialize([sweep], instance=instance).success
        gc.collect()
        assert [each() for each in found] == [None] * 3
