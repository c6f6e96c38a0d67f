"""Who may go on following a job: only the process whose run still counts on it.

A step's own process outlives the run worker that was killed with -9 (dagster 1.13: seen for more than a minute).
The run is then failed and retried. Whether two processes report one job's results is not decided here, but by the
job's lease; here a process notices early that it has no say any more.
"""

import multiprocessing
import threading
import time
from collections.abc import Sequence
from functools import lru_cache

import dagster as dg

from dagster_slurm_components.pipes.step import Step, run_of
from dagster_slurm_components.together import Together

STATUS = dg.DagsterRunStatus
_LOOK_EVERY = 30.0
_GATHER = 0.2
_LOOKS: dict[str, tuple[float, dg.DagsterRun | None]] = {}
"""When a run was looked at last, and what it was then: a thousand steps of one process share a look."""


@lru_cache(maxsize=1)
def _look(instance: dg.DagsterInstance) -> Together[str, dg.DagsterRun | None]:
    """Return what looks at a run as it stands now: once for all steps whose jobs have ended together."""

    def find(run_ids: Sequence[str]) -> Sequence[dg.DagsterRun | None]:
        runs = {run_id: run_of(instance, run_id) for run_id in set(run_ids)}
        return [runs[run_id] for run_id in run_ids]

    return Together(find, gather=_GATHER)


class SupervisionLostError(dg.DagsterExecutionInterruptedError):
    """This process has no say about its job any more; like an interrupt, it is no failure of the payload."""

    def __init__(self, message: str, *, cancelled: bool = False) -> None:
        super().__init__(message)
        self.cancelled = cancelled  # the run was, so that the job is to be cancelled too


class StoppedError(dg.DagsterExecutionInterruptedError):
    """The step was interrupted: by Dagster, by a signal, or as its function has ended."""


class Guard:
    """Watches whether this process still speaks for its run; ``stop`` is set when the step was interrupted."""

    def __init__(self, step: Step, stop: threading.Event) -> None:
        self._step = step
        self._stop = stop

    def check(self, *, thoroughly: bool = False) -> None:
        """Return if this process still speaks for its run; Dagster is asked from time to time, or ``thoroughly`` now.

        Raises:
            StoppedError: The step was interrupted.
            SupervisionLostError: The process has no say any more.
        """
        if self._stop.is_set() or not threading.main_thread().is_alive():
            raise StoppedError("This step was interrupted.")
        parent = multiprocessing.parent_process()
        if self._step.step_worker and parent is not None and not parent.is_alive():
            raise SupervisionLostError("The run worker of this step is gone.")
        if self._step.run is None:
            return
        run = self._run if thoroughly else self._lately
        if run is not None and run.is_finished:
            raise SupervisionLostError(
                f"The run has ended meanwhile, as {run.status.value}.",
                cancelled=run.status is STATUS.CANCELED,
            )

    def pause(self, seconds: float) -> None:
        """Wait, for as long as this process speaks for its run.

        Raises:
            StoppedError: The step was interrupted.
            SupervisionLostError: The process has no say any more.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            self._stop.wait(min(left, 1.0))

    @property
    def terminated(self) -> bool:
        """Whether a person terminates the run; any other end of the process leaves its jobs alone."""
        run = self._run
        return run is not None and run.status in (STATUS.CANCELING, STATUS.CANCELED)

    @property
    def _run(self) -> dg.DagsterRun | None:
        return _look(self._step.instance)(self._step.run_id) if self._step.run else None

    @property
    def _lately(self) -> dg.DagsterRun | None:
        run_id, now = self._step.run_id, time.monotonic()
        looked_at, run = _LOOKS.setdefault(run_id, (now, self._step.run))
        if now - looked_at < _LOOK_EVERY:
            return run
        _LOOKS[run_id] = now, run  # whoever comes meanwhile need not look, too
        run = self._run
        _LOOKS[run_id] = now, run
        return run
