"""Submission: one call that carries the bundle and starts the job, and that may be repeated without harm."""

from __future__ import annotations

import time
from collections.abc import Callable

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.calls import LeaseRequest, SubmitReply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.bundle import bundle
from dagster_slurm_components.jobs.lease import Attempt
from dagster_slurm_components.jobs.model import JobHandle, JobSpec
from dagster_slurm_components.jobs.schedulers import Scheduler
from dagster_slurm_components.slurm.rejections import Rejection, classify_rejection

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0


class SubmitRejectedError(DagsterSlurmError):
    """The scheduler refused the job, for a reason that waiting won't change.

    Args:
        rejection: What it said, and which option it is about.
        where: The host.
    """

    def __init__(self, rejection: Rejection, *, where: str) -> None:
        self.rejection = rejection
        super().__init__(rejection.message, where=where, hint=rejection.hint)


class EnvironmentLackingError(DagsterSlurmError):
    """The job's environment is not on the host, or not any more; nothing was submitted.

    Args:
        lacking: What is not there.
        where: The host.
    """

    def __init__(self, lacking: str, *, where: str) -> None:
        super().__init__(
            f"the job's environment is not there: {lacking}",
            where=where,
            hint="`dg-slurm env deploy` makes it.",
        )


class TakenError(DagsterSlurmError):
    """The run directory is another owner's by now, or holds a job of other content; nothing was submitted."""


def submit(
    satellite: Satellite,
    scheduler: Scheduler,
    spec: JobSpec,
    workdir: str,
    *,
    claim: LeaseRequest | None = None,
    tell: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> JobHandle:
    """Submit a job, once, however often this is tried and wherever it was cut off.

    An sbatch that gave no answer, and a limit on the number of jobs, are waited out; a connection that is lost is
    the host's own affair (``hosts.parked``). The satellite knows by the ledger and the job's token whether the job
    exists.

    Args:
        satellite: The host.
        scheduler: Who runs the job.
        spec: The job.
        workdir: The profile's working folder on the host, absolute.
        claim: Who submits, and what.
        tell: Receives a sentence each time there is something to wait for.
        sleep: Waits; the tests' clock.

    Raises:
        TakenError: Somebody else's job is there, or one of other content.
        SubmitRejectedError: The scheduler's lasting no.
        EnvironmentLackingError: The job's environment is not on the host.
        HostUnreachableError: The host was lost; trying again does no harm.
        HostRefusedError: The host's or the login's no.
        DagsterSlurmError: A file of the job that can't be read, or an option that can't be written.
    """
    run_dir = f"{workdir}/{spec.identity.folder}"
    packed = bundle(spec, scheduler.header(spec, run_dir))
    request = scheduler.request(spec, run_dir, workdir, claim)
    wait = _FIRST_WAIT
    while True:
        sent_at = time.time()
        reply = satellite.submit(request, packed)
        if reply.job_id is not None:
            return JobHandle(reply.job_id, run_dir, spec.identity.token, reply.outcome, sent_at)
        if reply.outcome == "lacking":
            raise EnvironmentLackingError(reply.detail, where=satellite.host.name)
        if reply.outcome == "taken":
            raise TakenError(f"{run_dir} is taken: {reply.detail}", where=satellite.host.name)
        reason = _reason_to_wait(satellite, reply)
        tell(f"The job is not submitted yet: {reason}")
        wait = reply.retry_after or wait
        sleep(min(wait, _LONGEST_WAIT))
        wait = min(wait * 2, _LONGEST_WAIT)


def find_job(
    satellite: Satellite,
    scheduler: Scheduler,
    attempt: Attempt,
    job_name: str,
    workdir: str,
    *,
    tell: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> JobHandle | None:
    """Return the job of an earlier attempt, or nothing where it surely made none; submits nothing.

    Arguments and errors are those of ``submit``; what may exist all the same is waited out as there.
    """
    ledger, wait = attempt.ledger, _FIRST_WAIT
    while True:
        if ledger.job_id is not None:
            return JobHandle(ledger.job_id, attempt.run_dir, ledger.token, "known", ledger.submitted)
        reply = satellite.submit(scheduler.settlement(attempt.run_dir, workdir, ledger.token, job_name), b"")
        if reply.job_id is not None:
            return JobHandle(reply.job_id, attempt.run_dir, ledger.token, "known")
        if reply.outcome == "none":
            return None
        tell(f"Whether an earlier attempt made a job is not known yet: {_reason_to_wait(satellite, reply)}")
        wait = reply.retry_after or wait
        sleep(min(wait, _LONGEST_WAIT))
        wait = min(wait * 2, _LONGEST_WAIT)


def _reason_to_wait(satellite: Satellite, reply: SubmitReply) -> str:
    """Return why a submission without a job has to be tried again.

    Raises:
        SubmitRejectedError: It has not.
    """
    said = "\n".join(text for text in (reply.stderr.strip(), reply.stdout.strip()) if text)
    if reply.outcome == "rejected":
        rejection = classify_rejection(said)
        if rejection.kind != "limit":
            raise SubmitRejectedError(rejection, where=satellite.host.name)
        return f"{rejection.message} It is tried again."
    return f"{reply.detail or 'the scheduler gave no clear answer'}. {said}".strip()
