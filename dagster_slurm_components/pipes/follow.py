"""Follows a job to its end, for as long as this process speaks for it.

A step that has to leave its job before that cancels it, or leaves it in good order to whoever takes it up.
"""

from dataclasses import asdict

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError, HostError
from dagster_slurm_components.hosts.satellite.calls import LeaseRenewal
from dagster_slurm_components.jobs.ending import LeaseLostError, cancel, end_job
from dagster_slurm_components.jobs.events import Ended, Watch
from dagster_slurm_components.jobs.into import RunningJob, stacks
from dagster_slurm_components.jobs.lease import CANCEL_WANTED
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.jobs.stuck import StuckTimer
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes.claim import SPANS, JobCall
from dagster_slurm_components.pipes.failure import no_start
from dagster_slurm_components.pipes.guard import StoppedError, SupervisionLostError
from dagster_slurm_components.pipes.listen import Listener
from dagster_slurm_components.pipes.records import keeps_runs, left_job

_LOOK = 1.0
_STACKS = 10.0
"""Seconds that it may take to look where processes stand: the step does nothing else meanwhile."""


class Follower:
    """Follows a job that is this process's by its claim, for as long as the guard lets it."""

    def __init__(self, call: JobCall, claim: Claim, handle: JobHandle, listener: Listener) -> None:
        self._call = call
        self._place = call.place
        self._guard = call.guard
        self._epoch = claim.lease.epoch
        self._handle = handle
        self._listener = listener
        self._log = call.step.context.log
        self._profile = call.resolved.profile

    def run(self) -> Ended:
        """Return when the job has ended and all its output was shown.

        Raises:
            Failure: It was stuck, or its caller has cancelled it.
            SupervisionLostError: This process has no say about it any more.
            StoppedError: The step was interrupted.
            HostError: It can't be watched any more, for a reason that waiting won't heal.
        """
        cancelled = self._call.cancel
        try:
            return self._to_its_end()
        except SupervisionLostError as lost:
            self._log.warning(f"{lost} This process leaves job {self._handle.job_id}.")
            if lost.cancelled or cancelled.is_set():
                self._cancel()
            raise
        except StoppedError:
            wanted = cancelled.is_set() or self._guard.terminated
            if wanted or self._profile.profile.on_shutdown == "cancel":
                self._cancel()
            else:
                self._leave()
            raise
        except Exception as error:
            if not isinstance(error, dg.Failure):  # whatever else it is, the job goes on, and that is said
                self._leave()
            raise
        finally:
            self._listener.close()
            if (spans := SPANS.get()) is not None:
                spans.append(self._listener.span)

    def _to_its_end(self) -> Ended:
        call, handle, listener = self._call, self._handle, self._listener
        timer = StuckTimer(call.resolved.script.stuck)
        asked = False
        while (ended := listener.listen(_LOOK)) is None:
            self._guard.check()
            stuck = timer.check(listener.observation)
            if stuck is not None:
                self._cancel()
                raise no_start(
                    str(stuck), (stuck.reason.option, *stuck.reason.others), call.resolved
                ) from stuck
            self._end_if_idle()
            if call.cancel.is_set():
                self._cancel()
                text = f"Job {handle.job_id} was cancelled by the code that submitted it."
                raise dg.Failure(text, allow_retries=False)
            if listener.lease_state == CANCEL_WANTED and not asked:
                asked = True  # whoever wrote that may be gone before it was done
                cancel(self._place.direct, handle)
                self._place.watcher.cancelled(handle)
        self._guard.check(thoroughly=True)
        return ended

    def _end_if_idle(self) -> None:
        """Tell of a payload that hangs, by all that is seen of it, and end it where `idle` says so."""
        news, resolved = self._listener.idle_news(), self._call.resolved
        if news is None:
            return
        self._log.warning(news.text)
        action = resolved.script.idle.action if news.hangs and resolved.script.idle else "none"
        at = resolved.position("idle", "action")
        why = f"It was cancelled: `idle.action: cancel`{f' is written at {at}' if at else ''}."
        if action == "stacks":
            self._log.warning(self._stacks(news.watch))
        elif action == "cancel" and news.watch is not self._listener.lease:
            self._cancel_element(news.watch.handle, f"{news.text} {why}")
        elif action == "cancel":
            self._cancel()
            own_policy = self._call.step.context.op_def.retry_policy is not None
            raise dg.Failure(f"{news.text}\n\n{why}", allow_retries=own_policy)

    def _cancel_element(self, element: JobHandle, why: str) -> None:
        """Cancel an element of the array, whose end is then one as any other's, and says why."""
        if element.job_id == self._handle.job_id:
            self._log.warning(
                f"One process runs all elements: none is cancelled by itself, {element.run_dir} neither."
            )
            return
        try:
            cancel(self._place.direct, element)
        except HostError as error:
            self._log.error(f"Element {element.job_id} could not be cancelled, and runs on: {error}")
        else:
            self._place.watcher.cancelled(element)
            self._listener.cancelled[element.job_id] = why
            self._log.warning(f"Element {element.job_id} was cancelled: `idle.action: cancel`.")

    def _stacks(self, watch: Watch) -> str:
        """Say where the processes of the payload stand."""
        handle = watch.handle
        job = RunningJob(self._place, handle, watch.evidence.status or StatusRecord())
        try:
            told = stacks(job, limit=_STACKS)
        except DagsterSlurmError as error:
            return f"Where the processes of job {handle.job_id} stand can't be told: {error}"
        return f"Where the processes of job {handle.job_id} stand:\n{told}"

    def _cancel(self) -> None:
        """Cancel the job. Where its host can't be reached, the sensor does once it can: the lease tells of it."""
        log, job_id = self._log, self._handle.job_id
        try:
            ended = end_job(self._place.direct, self._handle, self._epoch, self._listener.listen)
        except LeaseLostError as error:
            log.warning(f"{error} It is left to them.")
        except HostError as error:
            log.error(
                f"Job {job_id} could not be cancelled, and may run on: {error} Once the host answers, the sensor"
                f" `slurm_jobs` ends the jobs of cancelled runs; `dg-slurm jobs cancel {job_id}` ends this one."
            )
        else:
            if ended is None:
                log.warning(f"Job {job_id} was cancelled, but its end is not confirmed yet.")
            else:
                log.info(f"Job {job_id} was cancelled and has ended: {ended.observation.state}.")

    def _leave(self) -> None:
        """Leave the job to whoever takes it up; what was shown of it is written down."""
        step, handle = self._call.step, self._handle
        renewal = LeaseRenewal(handle.run_dir, self._epoch, asdict(self._listener.shown))
        try:
            self._place.direct.satellite.follow([], [renewal], total=0)
        except HostError as error:
            self._log.info(f"What was shown of job {handle.job_id} could not be written down: {error}")
        kept = step.run is not None and keeps_runs(step.instance)
        self._log.info(left_job(handle.job_id, step.run_id, self._profile.name, kept=kept))
