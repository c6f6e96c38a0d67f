"""What Dagster says of the step that a payload runs for: which run, which step, which partition, and after which."""

import multiprocessing
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import uuid4

import dagster as dg

from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.owner import Owner, this_owner
from dagster_slurm_components.pipes.call import INTERRUPTION, Calls
from dagster_slurm_components.pipes.context import AnyContext, StepContext, is_direct, partition_of, try_of

RUNS = threading.RLock()
"""Held by calls, which are threads, while they read or tag Dagster's runs: an instance in memory, as of
``dg.materialize``, refuses two threads at once (dagster 1.13), and tags are read, changed and written."""
_COUNTING, _COUNTED = threading.Lock(), "_dagster_slurm_calls"
_MOST_ANCESTORS = 64
_IN_PROCESS = ("in_process", "execute_in_process_executor")
"""Executors of Dagster that execute steps in the run's own process."""
_MAPPED = re.compile(r"\[[^\[\]]*\]$")
"""Ends the key of a step that is made for one of several dynamic outputs."""


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        context: Dagster's context.
        run: Its run; none where the function was called directly.
        run_id: The run's id.
        root_run_id: Id of the first run; the same for all runs that re-execute it.
        key: The step's key.
        partition: The partition's key or the range of them, or none.
        owner: The process whose end is the end of the run; of the step, where that was delegated.
        step_worker: Whether this process is the step's own, below a run worker.
        upstream: Which run made what this step reads, by upstream step.
        delegated: Whether this process is the step's own and knows no run worker, as in a container for each step.
        calls: The calls of this step that are under way: an interrupt is meant for all of them.
    """

    context: StepContext
    run: dg.DagsterRun | None
    run_id: str
    root_run_id: str
    key: str
    partition: str | None
    owner: Owner
    step_worker: bool
    upstream: Mapping[str, str]
    delegated: bool = False
    calls: Calls = field(default_factory=Calls, compare=False)

    @property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's instance."""
        return self.context.instance

    def identity(self, call: int) -> JobIdentity:
        """Return the identity of the first attempt at a call."""
        return JobIdentity(self.root_run_id, self.key, self.partition, call=call)

    @property
    def may_have_been_tried(self) -> bool:
        """Whether there may be attempts at this step already: of another run, or of this one."""
        if self.run is None:
            return False
        if self.run.parent_run_id is not None or self.context.retry_number > 0:
            return True
        with RUNS:  # one step asks, and those beside it wait for the answer
            return _was_resumed(self.instance, self.run_id)


@lru_cache(maxsize=1)
def _was_resumed(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether Dagster's run monitoring has given a run another worker (not with its default launcher, 1.13).

    That can't change while this worker lives. Dagster counts it by all engine events of the run, each step's too.
    """
    may_be = instance.run_monitoring_enabled and instance.run_monitoring_max_resume_run_attempts > 0
    return may_be and instance.count_resume_run_attempts(run_id) > 0


def step_of(context: AnyContext) -> Step:
    """Return the step that a context is for."""
    if isinstance(context, dg.AssetCheckExecutionContext):
        context = context.op_execution_context
    partition = partition_of(context).name
    if is_direct(context):
        run_id = f"direct-{uuid4()}"
        owner = this_owner(run_id, step_worker=False)
        return Step(context, None, run_id, run_id, context.op_def.name, partition, owner, False, {})
    run, step = context.run, context.get_step_execution_context().step
    own, below = _has_own_process(context), multiprocessing.parent_process() is not None
    worker = own and below
    owner = this_owner(run.run_id, step_worker=worker)
    upstream = made_by(context.instance, run, frozenset(step.get_execution_dependency_keys()))
    root = run.root_run_id or run.run_id
    return Step(
        context, run, run.run_id, root, step.key, partition, owner, worker, upstream, own and not below
    )


def _has_own_process(context: StepContext) -> bool:
    """Whether this process is the step's own: that of the multiprocess executor, of ours, or of one that delegates.

    A run worker, too, is a child of Python's `multiprocessing` where a code server starts it (dagster 1.13), so the
    executor decides.
    """
    config: Any = context.run.run_config.get("execution") or {}
    in_process = context.job_def.executor_def.name in _IN_PROCESS or "in_process" in (
        config.get("config") or {}
    )
    return INTERRUPTION.get() is None and not in_process


def made_by(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: frozenset[str]) -> dict[str, str]:
    """Return which run executed each step last: this one, or the nearest of those that it re-executes.

    So a re-execution of all steps is told from one that begins at the step that failed: what is run anew upstream makes
    the job of an earlier run out of date.
    """
    makers: dict[str, str] = {}
    left, each = steps, run
    for _ in range(_MOST_ANCESTORS):
        if not left:
            break
        here = executed(instance, each, left)
        makers.update(dict.fromkeys(here, each.run_id))
        left = left - here
        parent = run_of(instance, each.parent_run_id) if left and each.parent_run_id else None
        if parent is None:
            break
        each = parent
    return makers


def run_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun | None:
    """Return a run as it stands now, if it is there."""
    with RUNS:
        return instance.get_run_by_id(run_id)


def location_of(run: dg.DagsterRun | None) -> str:
    """Return what a run's definitions were loaded from; those of another code location may have the same names."""
    origin = run.job_code_origin if run is not None else None
    # Neither the location's name nor its folder: `dg launch` knows none, and the next release has another.
    return origin.repository_origin.code_pointer.describe() if origin is not None else ""


def executed(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: frozenset[str]) -> frozenset[str]:
    """Return which of these steps a run executes."""
    planned = run.step_keys_to_execute
    if planned is None:
        snapshot = run.execution_plan_snapshot_id
        if snapshot is None:
            return steps
        planned = instance.get_execution_plan_snapshot(snapshot).step_keys_to_execute
    # A plan can't know the steps of dynamic outputs yet: `work[a]` is in it as `work[?]` (dagster 1.13).
    return frozenset(step for step in steps if step in planned or _MAPPED.sub("[?]", step) in planned)


def unfinished_runs(step: Step) -> frozenset[str]:
    """Return this run and those that it re-executes, back to the last in which the step succeeded.

    What they did is gone on from: whoever re-executes a step that has succeeded wants all of it anew.
    """
    runs, each = {step.run_id}, step.run
    for _ in range(_MOST_ANCESTORS):
        each = run_of(step.instance, each.parent_run_id) if each and each.parent_run_id else None
        if each is None:
            break
        stats = step.instance.get_run_step_stats(each.run_id, [step.key])
        if any(stat.status is not None and stat.status.value == "SUCCESS" for stat in stats):
            break
        runs.add(each.run_id)
    return frozenset(runs)


def next_calls(context: AnyContext, count: int = 1) -> tuple[Step, range]:
    """Return the step of a context, and the numbers of its next calls.

    They count from 0, in the order in which the calls are made: the same on each try of the step.
    """
    with _COUNTING:
        tried = try_of(context)
        # Kept there, as a step knows its context: in a table of ours neither would ever be forgotten.
        step, begin = getattr(tried, _COUNTED, None) or (step_of(context), 0)
        setattr(tried, _COUNTED, (step, begin + count))
    return step, range(begin, begin + count)
