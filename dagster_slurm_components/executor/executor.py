"""The executor: starts the steps of a run as they become ready, and hands their events to Dagster."""

import gc
import queue
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dagster_slurm_components.executor.dagster_parts import (
    ActiveExecution,
    ChildProcessCrashException,
    DagsterSubprocessError,
    EngineEventData,
    ExecutionPlan,
    ExecutionStep,
    InstanceConcurrencyContext,
    PlanOrchestrationContext,
    RetryMode,
    SerializableErrorInfo,
    serializable_error_info,
)
from dagster_slurm_components.executor.output import routed
from dagster_slurm_components.executor.steps import (
    ProcessStep,
    Report,
    RunningStep,
    StepEnded,
    ThreadContext,
    ThreadStep,
)
from dagster_slurm_components.executor.storage import storage_kept_open
from dagster_slurm_components.executor.tags import STEP_TAG, THREAD
from dagster_slurm_components.jobs.timeline import table, timeline
from dagster_slurm_components.pipes.call import INTERRUPTS

_LISTEN = 0.2
"""Seconds after which a signal is heard."""
_LOOK_PAST = 32
_INTERRUPT_NAMES = frozenset(error.__name__ for error in INTERRUPTS)


@dataclass
class Lane:
    """Steps of one kind: those that run, at most ``limit``, and those that are next."""

    limit: int
    waiting: deque[ExecutionStep] = field(default_factory=deque)
    running: dict[str, RunningStep] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """How many more steps may be asked for."""
        return max(0, self.limit - len(self.running) - len(self.waiting))


class SlurmExecutor(dg.Executor):
    """Runs steps that wait for jobs as threads of the run's process, and all others as processes.

    Args:
        retries: Whether steps are retried.
        max_jobs: The most steps in threads at once.
        max_concurrent: The most steps in processes at once.
        tag_concurrency_limits: Further limits by tag, as of Dagster's multiprocess executor.
    """

    def __init__(
        self,
        *,
        retries: RetryMode,
        max_jobs: int,
        max_concurrent: int,
        tag_concurrency_limits: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._retries = retries
        self._max_jobs = max_jobs
        self._max_concurrent = max_concurrent
        self._tag_limits = [dict(limit) for limit in tag_concurrency_limits]

    @property
    def retries(self) -> RetryMode:
        """Whether steps are retried."""
        return self._retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Execute a run.

        Raises:
            DagsterExecutionInterruptedError: It was terminated; all its steps have ended by then.
            DagsterSubprocessError: The process of a step failed outside the step.
        """
        with ExitStack() as stack:
            pools = stack.enter_context(
                InstanceConcurrencyContext(plan_context.instance, plan_context.dagster_run)
            )
            active = stack.enter_context(
                ActiveExecution(
                    execution_plan,
                    retry_mode=self._retries,
                    tag_concurrency_limits=self._tag_limits,
                    instance_concurrency_context=pools,
                )
            )
            stack.enter_context(routed())
            stack.enter_context(storage_kept_open(plan_context.instance, plan_context.run_id))
            run = RunExecution(
                plan_context,
                execution_plan,
                active,
                self._retries,
                threads=Lane(self._max_jobs),
                processes=Lane(self._max_concurrent),
            )
            # What is there by now, as the definitions of 1,000 assets, stays: to look through it for garbage again and
            # again was a seventh of this process's CPU while 200 steps submitted.
            gc.freeze()
            stack.callback(gc.unfreeze)
            yield from run.events()


class RunExecution:
    """The execution of one run; its events are to be handed on, and are logged already."""

    def __init__(
        self,
        run: PlanOrchestrationContext,
        plan: ExecutionPlan,
        active: ActiveExecution,
        retries: RetryMode,
        *,
        threads: Lane,
        processes: Lane,
    ) -> None:
        self._run = run
        self._active = active
        self._retries = retries
        self._lanes = (threads, processes)
        self._threads, self._processes = threads, processes
        threaded = self._only_threads(plan)
        self._context = ThreadContext(run, threaded, retries) if threaded.step_handles_to_execute else None
        self._up_for_retry: dict[str, dg.DagsterEvent] = {}
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._stopping = False
        self._errors: list[SerializableErrorInfo] = []

    def events(self) -> Iterator[dg.DagsterEvent]:
        """Execute all steps."""
        if self._run.resume_from_failure:
            self._resume()
        try:
            while self._running or not (self._stopping or self._active.is_complete):
                if self._active.check_for_interrupts():
                    yield from self._stop("The executor was told to end; so are its steps.")
                if not self._stopping:
                    self._start_what_is_ready()
                yield from self._active.concurrency_event_iterator(self._run)
                yield from self._hear()
                yield from self._active.plan_events_iterator(self._run)
        except BaseException:
            # Whatever it is: no step may be left to itself, or find its resources torn down.
            running = self._running
            for _ in self._stop("The executor failed; its steps are told to end."):
                pass
            for step in running:
                step.join()
            raise
        finally:
            if self._context is not None:
                self._context.close()
        if self._context is not None and (spans := self._context.spans):
            drawn = {"run/timeline": timeline(spans), "run/jobs": table(spans)}
            data = EngineEventData({name: dg.MetadataValue.md(text) for name, text in drawn.items()})
            yield dg.DagsterEvent.engine_event(self._run, "The jobs of this run.", data)
        if self._stopping and all(error.cls_name in _INTERRUPT_NAMES for error in self._errors):
            raise dg.DagsterExecutionInterruptedError
        if self._errors:
            raise DagsterSubprocessError(
                "The processes of some steps failed:\n"
                + "\n".join(error.to_string() for error in self._errors),
                subprocess_error_infos=self._errors,
            )

    def _resume(self) -> None:
        """Go on with a run whose process died: what it did is read, and steps that had begun begin anew."""
        entries = self._run.instance.all_logs(self._run.run_id)
        events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
        for step in self._active.rebuild_from_events(events):
            self._lane(step).waiting.append(step)

    def _stop(self, text: str) -> Iterator[dg.DagsterEvent]:
        data = EngineEventData.interrupted([running.step.key for running in self._running])
        yield dg.DagsterEvent.engine_event(self._run, text, data)
        self._stopping = True
        self._active.mark_interrupted()
        for running in self._running:
            running.interrupt()

    def _start_what_is_ready(self) -> None:
        # No more than can begin, and a few to look past steps whose lane is full: one that waits here holds its place
        # in its pool already.
        behind = sum(len(lane.waiting) for lane in self._lanes)
        wanted = max(lane.free for lane in self._lanes) if behind < _LOOK_PAST else 0
        for step in self._active.get_steps_to_execute(limit=wanted) if wanted else ():
            self._lane(step).waiting.append(step)
        known_state = None
        for lane in self._lanes:
            while lane.waiting and len(lane.running) < lane.limit:
                known_state = known_state or self._active.get_known_state()
                step = lane.waiting.popleft()
                arguments = (step, known_state, self._reports)
                running: RunningStep = (
                    ThreadStep(*arguments, context=self._context)
                    if lane is self._threads and self._context is not None
                    else ProcessStep(*arguments, run=self._run, retries=self._retries)
                )
                lane.running[step.key] = running
                running.start()

    def _hear(self) -> Iterator[dg.DagsterEvent]:
        """Hand on what steps report; wait for it a moment. However much there is, signals are heard in between."""
        timeout, until = _LISTEN, time.monotonic() + _LISTEN
        while time.monotonic() < until:
            try:
                running, report = self._reports.get(timeout=timeout)
            except queue.Empty:
                return
            timeout = 0.0
            if isinstance(report, StepEnded):
                yield from self._end(running, report.error)
            else:
                yield report
                self._handle(report)
                if report.is_resource_init_failure and report.engine_event_data.error:
                    yield self._fail(running.step, report.engine_event_data.error)

    def _end(self, running: RunningStep, error: BaseException | None) -> Iterator[dg.DagsterEvent]:
        """A step has given its last event."""
        key = running.step.key
        if error is not None and not isinstance(error, INTERRUPTS):
            info = serializable_error_info(error)
            if isinstance(error, ChildProcessCrashException):
                text = f"The process of step {key} ended with exit code {error.exit_code}."
                step_context = self._run.for_step(running.step)
                yield dg.DagsterEvent.engine_event(step_context, text, EngineEventData.engine_error(info))
            yield self._fail(running.step, info)
        if isinstance(running, ProcessStep):
            self._errors += running.errors.values()
        del self._lane(running.step).running[key]
        if key in self._up_for_retry:
            self._active.handle_event(self._up_for_retry.pop(key))
        self._active.verify_complete(self._run, key)

    def _fail(self, step: ExecutionStep, error: SerializableErrorInfo) -> dg.DagsterEvent:
        """Fail a step that could not tell Dagster itself, or have it tried again where its policy says so."""
        event = self._run.executor.log_failure_or_retry_event_after_error(
            self._run.for_step(step), error, self._active.get_known_state()
        )
        self._handle(event)
        return event

    def _handle(self, event: dg.DagsterEvent) -> None:
        if event.is_step_up_for_retry and event.step_key is not None:
            # Not before this try has ended, hooks and all: the next one goes by the same key.
            self._up_for_retry[event.step_key] = event
        else:
            self._active.handle_event(event)

    @property
    def _running(self) -> list[RunningStep]:
        return [running for lane in self._lanes for running in lane.running.values()]

    def _lane(self, step: ExecutionStep) -> Lane:
        return self._threads if self._is_thread(step) else self._processes

    def _is_thread(self, step: Any) -> bool:
        return bool(step.tags.get(STEP_TAG) == THREAD)

    def _only_threads(self, plan: ExecutionPlan) -> ExecutionPlan:
        """Return a plan of which only the steps in threads are to be executed: their resources alone are made."""
        handles = [
            handle for handle in plan.step_handles_to_execute if self._is_thread(plan.step_dict[handle])
        ]
        return plan._replace(step_handles_to_execute=handles)
