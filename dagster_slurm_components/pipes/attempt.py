"""One attempt at a call: submits its job, or takes up the one there is, follows it to its end, and judges that."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

import dagster as dg

from dagster_slurm_components.errors import HostError
from dagster_slurm_components.jobs.budgets import budget_figures, budget_warning, budgets_of
from dagster_slurm_components.jobs.dashboard import dashboard
from dagster_slurm_components.jobs.events import MESSAGES, Ended
from dagster_slurm_components.jobs.figures import Figure, job_figures
from dagster_slurm_components.jobs.job_spec import job_spec
from dagster_slurm_components.jobs.lease import COLLECTED, ENDED, OutputPosition
from dagster_slurm_components.jobs.model import JobHandle, JobSpec
from dagster_slurm_components.jobs.outcome import JobOutcome, end_word, judge
from dagster_slurm_components.jobs.retry import NextAttempt, next_attempt
from dagster_slurm_components.jobs.submit import LackingError, SubmitRejectedError, submit
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes.advice import advice, pictures
from dagster_slurm_components.pipes.claim import LAST_RESULT, JobCall, results_stored
from dagster_slurm_components.pipes.context import Partition, selection
from dagster_slurm_components.pipes.failure import failure, no_start
from dagster_slurm_components.pipes.follow import Follower
from dagster_slurm_components.pipes.guard import SupervisionLostError
from dagster_slurm_components.pipes.listen import JobListener, JobOutput
from dagster_slurm_components.pipes.outputs import output_figures, previews
from dagster_slurm_components.pipes.partition import variables
from dagster_slurm_components.pipes.pull import Puller
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.records import tag_job, tell
from dagster_slurm_components.pipes.relays import Relays
from dagster_slurm_components.pipes.results import CompletedJob, keep_check_results, typed
from dagster_slurm_components.slurm.shares import Budget
from dagster_slurm_components.spec.resolve import ResolvedScript

_LISTEN = 0.5

Result = TypeVar("Result")
AnyCall = TypeVar("AnyCall", bound=JobCall)


@dataclass
class AttemptRun(ABC, Generic[AnyCall, Result]):
    """One attempt at a call, which is this process's by its claim; ``budgets`` are what was left before its job."""

    call: AnyCall
    claim: Claim
    budgets: Sequence[Budget] = field(default=(), init=False)

    def run(self) -> Result | NextAttempt:
        """Run one job, once there is room for it; return its results, or what the retry policy answers its end with.

        Raises:
            TakenError: Somebody else's job is there.
            Failure: The payload failed, the job was stopped or cancelled, or the scheduler refused it.
            HostError: The host refuses us.
        """
        slots = self.call.place.slots
        if slots is None:
            return self.perform()
        while not slots.acquire(timeout=_LISTEN):
            self.call.guard.check()
        try:
            return self.perform()
        finally:
            slots.release()

    @abstractmethod
    def perform(self) -> Result | NextAttempt:
        """Run one job now; as ``run``."""

    @property
    def _run_dir(self) -> str:
        return f"{self.call.place.workdir}/{self.claim.identity.folder}"

    def _submit(self, spec: Callable[[], JobSpec]) -> tuple[JobHandle, JobSpec]:
        """Submit the job; an environment that was there lately and is not any more is made first."""
        call, info = self.call, self.call.step.context.log.info
        try:
            try:
                return self._submit_once(spec())
            except LackingError as error:
                info(f"Not submitted yet: {error.message}")
            call.equip(sure=True)
            return self._submit_once(spec())
        except SubmitRejectedError as error:
            call.place.direct.leases.change(self._run_dir, self.claim.lease.epoch, ENDED, outcome="REFUSED")
            text = f"The scheduler refused the job: {error}"
            raise no_start(text, (error.rejection.option,), call.resolved) from error

    def _submit_once(self, spec: JobSpec) -> tuple[JobHandle, JobSpec]:
        call, place = self.call, self.call.place
        request, info = self.claim.request(call.digest, call.content), call.step.context.log.info
        self._look_at_budgets(spec)
        handle = submit(place, spec, claim=request, tell=info, sleep=call.guard.pause)
        self._tell_of(handle, len(spec.array.own) if spec.array else 0)
        return handle, spec

    def _look_at_budgets(self, spec: JobSpec) -> None:
        """Warn of a budget that can't pay; it is Slurm that decides. Whoever names no account pays by none we know."""
        call, account = self.call, self.call.resolved.script.resources.account
        if account is None or self.claim.adopted:
            return
        self.budgets = budgets_of(call.place, account)
        jobs, time_limit = len(spec.array.tasks) if spec.array else 1, dict(spec.sbatch).get("time")
        if warning := budget_warning(self.budgets, call.resolved, time=time_limit, jobs=jobs):
            call.step.context.log.warning(warning)

    def _tell_of(self, handle: JobHandle, elements: int) -> None:
        call, host = self.call, self.call.place.satellite.host.name
        how = "taken up again" if self.claim.adopted and handle.outcome != "submitted" else handle.outcome
        what = f"Job array {handle.job_id} of {elements}" if elements else f"Job {handle.job_id}"
        call.handle = handle
        tag_job(call.step, handle.job_id)
        tell(
            call.step,
            f"{what} {how} on {host} (profile {call.resolved.profile.name}), run directory {handle.run_dir}",
            {"job/id": handle.job_id, "job/run_directory": handle.run_dir},
        )

    def _spec(
        self,
        resolved: ResolvedScript,
        session: dg.PipesSession,
        partition: Partition,
        run_dir: str,
        *,
        files: Mapping[PurePosixPath, Path] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> JobSpec:
        """Return the job of a payload that is told of one partition, or of the range of them, in a run directory."""
        own = {**variables(partition, run_dir), **self.call.env, **(env or {})}
        own |= {**session.get_bootstrap_env_vars(), "DAGSTER_SLURM_MESSAGES": f"{run_dir}/{MESSAGES}"}
        inputs = self.call.inputs.of(resolved, partition)
        resolved, activation = inputs.fill(resolved, partition), inputs.add_to(self.call.activation, run_dir)
        changed = self.claim.lease.note.changed
        spec = job_spec(
            resolved, self.claim.identity, activation=activation, env=own, changed=changed, files=files
        )
        context = json.dumps(session.context_data).encode()
        return replace(spec, context=context, partition_keys=partition.keys, left=self.call.left_record)

    def _close(self, outcome: str, shown: OutputPosition) -> float:
        """Write down how the job ended; return when.

        Raises:
            SupervisionLostError: Somebody else has taken the job over.
        """
        leases, epoch, now = self.call.place.leases, self.claim.lease.epoch, time.time()
        if not leases.change(self._run_dir, epoch, ENDED, outcome=outcome, shown=shown):
            raise SupervisionLostError(f"The job in {self._run_dir} is followed by somebody else by now.")
        return now

    def _collect(self) -> None:
        """Write down that Dagster has stored the results: they are never handed over again."""
        log, leases, epoch = self.call.step.context.log, self.call.place.direct.leases, self.claim.lease.epoch
        state, outcome = (COLLECTED, None) if self.call.settled else (ENDED, "FAILED")
        try:
            if leases.change(self._run_dir, epoch, state, outcome=outcome) is None:
                log.warning(f"The job in {self._run_dir} is followed by somebody else by now.")
        except HostError as error:
            log.info(f"That the results are collected could not be written down yet: {error}")

    def _collect_stored(self, since: float) -> None:
        step = self.call.step
        # Somebody may make a list of results and yield them later: then whoever comes next asks Dagster. Here it is
        # asked only where that is not known: reading the newest events of 300 steps that end
        # together was a fifth of their CPU.
        last = LAST_RESULT.get()
        known = step.run is None or (last is not None and last >= since)
        if known or results_stored(step.instance, step.run_id, step.key, since):
            self._collect()

    def _answer(
        self,
        outcome: JobOutcome,
        ended: Ended,
        options: Mapping[str, str],
        output: JobOutput,
        figures: Mapping[str, Figure],
    ) -> NextAttempt | dg.Failure:
        """Return what a bad end is answered with: what the retry policy says, or the failure where it says nothing.

        ``options`` are the Slurm options that the job was submitted with.
        """
        resolved, retries = self.call.resolved, self.claim.lease.note.retries
        policy = resolved.script.retry
        again = next_attempt(policy, outcome, ended, options=options, retries=retries)
        return again or failure(
            outcome,
            resolved,
            exception=output.reader.exception,
            stderr=output.stderr_tail,
            figures=figures,
            context=self.call.step.context,
        )

    def _figures(self, handle: JobHandle, ended: Ended) -> dict[str, Figure]:
        profile = self.call.resolved.profile
        figures = job_figures(
            handle,
            ended,
            profile=profile.name,
            host=self.call.place.satellite.host.name,
            whole_nodes=self.call.resolved.script.resources.exclusive is True,
            co2_g_per_kwh=profile.profile.cost.co2_g_per_kwh,
        )
        way = dashboard(ended.evidence.status, handle, profile)
        more: dict[str, Figure] = {"job/ray_dashboard": way.metadata} if way else {}
        more |= budget_figures(self.budgets)
        return {**figures, **profile.run.figures, **more, **output_figures(ended, handle, profile.name)}

    def _brought(self, handle: JobHandle, ended: Ended) -> dict[str, Figure]:
        """Return previews of outputs, and where those are that are to be on this machine."""
        call = self.call
        place, guard, log = call.place, call.guard, call.step.context.log
        puller = Puller(place.satellite, call.resolved.profile, place.workdir, log.info, guard.check)
        return {**previews(ended.made, place.satellite), **puller.pull(ended.made, handle)}


class JobAttempt(AttemptRun[JobCall, CompletedJob]):
    """An attempt of one job."""

    def perform(self) -> CompletedJob | NextAttempt:
        """Submit it, follow it to its end, and judge that."""
        call, context, resolved = self.call, self.call.step.context, self.call.resolved
        reader = RunDirectoryMessageReader(f"{self._run_dir}/{MESSAGES}", selection(context), call.label)
        session = call.session(reader, self._run_dir)
        handle, spec = self._submit(lambda: self._spec(resolved, session, call.partition, self._run_dir))
        listener = JobListener(call, self.claim, handle, reader)
        with Relays(call, handle, lambda: listener.ended is not None) as relays:
            ended = Follower(call, self.claim, handle, listener).run()
        outcome = judge(ended)
        figures = {**self._figures(handle, ended), **relays.figures}
        figures |= pictures(ended, figures)
        figures |= advice(figures, resolved, call.partition, tell=context.log.info)
        ended_at = self._close(end_word(ended), listener.shown)  # before anything of it is handed on
        if outcome.success:
            figures |= self._brought(handle, ended)
            metadata = typed(figures)
            stored = partial(self._collect_stored, ended_at)
            return CompletedJob(session, metadata, made=ended.made, stored=stored)
        answer = self._answer(outcome, ended, dict(spec.sbatch), listener.output, figures)
        if isinstance(answer, NextAttempt):
            return answer
        keep_check_results(session, typed(figures))
        raise answer
