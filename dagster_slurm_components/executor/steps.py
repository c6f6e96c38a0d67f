"""A step under way: in a thread of this process, or in a process of its own that a thread looks after.

Either way it is an iterator of Dagster's events, run in a thread that puts them into the executor's queue.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import dagster as dg

from dagster_slurm_components.executor.dagster_parts import (
    CapturedLogContext,
    ExecutionPlan,
    ExecutionStep,
    KnownExecutionState,
    PlanExecutionContext,
    PlanExecutionContextManager,
    PlanOrchestrationContext,
    RetryMode,
    SerializableErrorInfo,
    dagster_event_sequence_for_step,
    execute_step_out_of_process,
    trigger_hooks,
)
from dagster_slurm_components.executor.output import captured
from dagster_slurm_components.jobs.timeline import Span
from dagster_slurm_components.pipes.call import INTERRUPTION
from dagster_slurm_components.pipes.claim import LAST_RESULT, RESULTS, SPANS

_START_METHOD = "spawn"
"""As Dagster's multiprocess executor does: a process that has threads must not be forked."""


@dataclass(frozen=True)
class StepEnded:
    """A step gives no more events; with the error by which it came to an end that Dagster was not told of."""

    error: BaseException | None = None


Report = tuple["RunningStep", dg.DagsterEvent | StepEnded]


class RunningStep(ABC):
    """A step under way."""

    def __init__(
        self, step: ExecutionStep, known_state: KnownExecutionState, reports: queue.SimpleQueue[Report]
    ) -> None:
        self.step = step
        self._known_state = known_state
        self._reports = reports
        # Not a daemon: an interpreter that ends waits for what has begun.
        self._thread = threading.Thread(target=self._run, name=f"step {step.key}")

    def start(self) -> None:
        """Begin with it."""
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for event in self._events():
                self._reports.put((self, event))
        except BaseException as caught:  # noqa: BLE001 - the executor decides what it means
            error = caught
        self._reports.put((self, StepEnded(error)))

    @abstractmethod
    def _events(self) -> Iterator[dg.DagsterEvent]: ...

    @abstractmethod
    def interrupt(self) -> None:
        """Have it end."""


class ThreadContext:
    """The context of all steps in this process: its resources are made once, before the first step begins.

    A context for each step, as in a process of its own, would read the run's whole configuration anew: 36 ms in a job
    of 1,000 assets (dagster 1.13). Made while steps run it could wait for ever: Dagster configures Python's logging for
    it, which takes the lock of logging and then those of the handlers; a thread that stores an event holds the lock of
    a handler and may want that of logging, in SQLAlchemy.
    """

    def __init__(self, run: PlanOrchestrationContext, plan: ExecutionPlan, retries: RetryMode) -> None:
        self.spans: list[Span] = []
        """The jobs of the steps."""
        self._error: Exception | None = None
        self._manager = PlanExecutionContextManager(
            job=run.job,
            execution_plan=plan,
            run_config=run.run_config,
            dagster_run=run.dagster_run,
            instance=run.instance,
            retry_mode=retries.for_inner_plan(),
        )
        try:
            list(self._manager.prepare_context())  # it logs its events itself
        except Exception as error:  # noqa: BLE001 - raised again by each step that needs the resources
            self._error = error

    def get(self) -> PlanExecutionContext:
        """Return the context.

        Raises:
            Exception: A resource could not be made.
        """
        if self._error is not None:
            raise self._error
        return self._manager.get_context()

    def close(self) -> None:
        """Tear the resources down."""
        if self._error is None:
            list(self._manager.shutdown_context())


class ThreadStep(RunningStep):
    """A step in a thread of this process."""

    def __init__(self, *arguments: Any, context: ThreadContext) -> None:
        super().__init__(*arguments)
        self._context = context
        self._interruption: Future[None] = Future()

    def _events(self) -> Iterator[dg.DagsterEvent]:
        INTERRUPTION.set(self._interruption)
        SPANS.set(self._context.spans)
        run = self._context.get()
        context = run.for_step(self.step, self._known_state)
        manager = run.instance.compute_log_manager
        told: list[dg.DagsterEvent] = []
        with captured(manager, run.run_id) as output:
            place = CapturedLogContext(output.log_key)
            yield dg.DagsterEvent.capture_logs(run, [self.step.key], output.log_key, place)
            for event in dagster_event_sequence_for_step(context):
                if event.event_type in RESULTS:
                    LAST_RESULT.set(time.time())
                told.append(event)
                yield event
            yield from trigger_hooks(context, told)

    def interrupt(self) -> None:
        """Have it end as a signal would: what it waits for in `pipes.call` is interrupted."""
        if not self._interruption.done():
            self._interruption.set_result(None)


class ProcessStep(RunningStep):
    """A step in a process of its own, as Dagster's multiprocess executor runs them."""

    def __init__(self, *arguments: Any, run: PlanOrchestrationContext, retries: RetryMode) -> None:
        super().__init__(*arguments)
        self._run_context = run
        self._retries = retries
        self._interrupted = False
        self.errors: dict[int, SerializableErrorInfo] = {}

    def _events(self) -> Iterator[dg.DagsterEvent]:
        run, key = self._run_context, self.step.key
        context = multiprocessing.get_context(_START_METHOD)
        processes: dict[str, BaseProcess] = {}
        events = execute_step_out_of_process(
            context,
            run.reconstructable_job,
            run.for_step(self.step),
            self.step,
            self.errors,
            processes,
            {key: context.Event()},
            self._retries,
            self._known_state,
            run.execution_plan.repository_load_data,
        )
        interrupted = False
        for event in events:  # none at all is one, too: many a second while the step says nothing
            if event is not None:
                yield event
            process = processes.get(key)
            if self._interrupted and not interrupted and process and process.pid and process.is_alive():
                interrupted = True
                os.kill(process.pid, signal.SIGINT)

    def interrupt(self) -> None:
        """Have it interrupted by a signal, as Dagster's own thread in there would.

        That thread waits for an event of `multiprocessing`. A process that died while it looked at it has left it
        locked: setting it would wait for ever (seen with a step that ended in that moment).
        """
        self._interrupted = True
