"""Who may go on following a job: only the process whose run still counts on it.

A step's own process outlives the run worker that was killed with -9 (dagster 1.13: seen for more than a minute).
The run is then failed and retried, and two processes would report one job's results.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

import dagster as dg

_LOOK_EVERY = 30.0


class SupervisionLostError(dg.DagsterExecutionInterruptedError):
    """This process has no say about its job any more; like an interrupt, it is no failure of the payload.

    Args:
        message: Why.
        cancelled: Whether the run was cancelled, so that the job is to be cancelled too.
    """

    def __init__(self, message: str, *, cancelled: bool = False) -> None:
        super().__init__(message)
        self.cancelled = cancelled


class Guard:
    """Watches whether this process still speaks for its run.

    Args:
        instance: Dagster's instance.
        run_id: The run.
        step_worker: Whether this process is a step's own, which has to end with its run worker.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        *,
        step_worker: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance = instance
        self._run_id = run_id
        self._step_worker = step_worker
        self._clock = clock
        self._looked_at = clock()

    def check(self, *, thoroughly: bool = False) -> None:
        """Return if this process still speaks for its run.

        Args:
            thoroughly: Ask Dagster now, and not only from time to time; before results are handed on.

        Raises:
            SupervisionLostError: It does not.
        """
        parent = multiprocessing.parent_process()
        if self._step_worker and parent is not None and not parent.is_alive():
            raise SupervisionLostError("The run worker of this step is gone.")
        now = self._clock()
        if not thoroughly and now - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        run = self._instance.get_run_by_id(self._run_id)
        if run is not None and run.is_finished:
            raise SupervisionLostError(
                f"The run has ended meanwhile, as {run.status.value}.",
                cancelled=run.status is dg.DagsterRunStatus.CANCELED,
            )

    def pause(self, seconds: float) -> None:
        """Wait, for as long as this process speaks for its run.

        Raises:
            SupervisionLostError: It does not any more.
        """
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            self.check()
            time.sleep(min(left, 1.0))
