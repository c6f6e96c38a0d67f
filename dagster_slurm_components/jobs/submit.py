"""Submission: one call that carries the bundle and starts the job, and that may be repeated without harm."""

import time
from collections.abc import Callable

from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError
from dagster_slurm_components.hosts.parked import parked_too_long
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest, SubmitReply, SubmitRequest
from dagster_slurm_components.jobs.bundle import bundle
from dagster_slurm_components.jobs.lease import Attempt
from dagster_slurm_components.jobs.model import JobHandle, JobSpec
from dagster_slurm_components.jobs.schedulers import Scheduler
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.slurm.rejections import Rejection, classify_rejection

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0


class SubmitRejectedError(DagsterSlurmError):
    """The scheduler refused the job, for a reason that waiting won't change: ``rejection`` says which."""

    def __init__(self, rejection: Rejection, *, where: str) -> None:
        self.rejection = rejection
        super().__init__(rejection.message, where=where, hint=rejection.hint)


class LackingError(DagsterSlurmError):
    """What the job needs is not on the host, or not any more: software or an input; nothing was submitted."""


class TakenError(DagsterSlurmError):
    """The run directory is another owner's by now, or holds a job of other content; nothing was submitted."""


def submit(
    place: Target,
    spec: JobSpec,
    *,
    claim: LeaseRequest | None = None,
    tell: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> JobHandle:
    """Submit a job, once, however often this is tried and wherever it was cut off.

    An sbatch that gave no answer, and a limit on the number of jobs, are waited out; a connection that is lost is
    the host's own affair (``hosts.parked``). The satellite knows by the ledger and the job's token whether the job
    exists. ``tell`` receives a sentence each time there is something to wait for.

    Raises:
        TakenError: Somebody else's job is there, or one of other content.
        SubmitRejectedError: The scheduler's lasting no.
        LackingError: The job's environment is not on the host.
        HostUnreachableError: The host was lost; trying again does no harm.
        ParkedTooLongError: Slurm did not tell for the profile's ``park_timeout`` whether there is a job.
        HostRefusedError: The host's or the login's no.
        DagsterSlurmError: A file of the job that can't be read, or an option that can't be written.
    """
    run_dir, where = f"{place.workdir}/{spec.identity.folder}", place.satellite.host.name
    packed = bundle(spec, place.scheduler.header(spec, run_dir))
    request = request_for(place.scheduler, spec, run_dir, place.workdir, claim)

    sent_at, reply = _submit(place, request, packed, "The job is not submitted yet", tell=tell, sleep=sleep)
    if reply.outcome == "lacking":
        raise LackingError(
            f"what the job needs is not there: {reply.detail}",
            where=where,
            hint="`dg-slurm env deploy` makes environments. An output of another job that is gone has to be made anew.",
        )
    if reply.job_id is None:
        raise TakenError(f"{run_dir} is taken: {reply.detail}", where=where)
    return JobHandle(reply.job_id, run_dir, reply.outcome, sent_at)


def request_for(
    scheduler: Scheduler, spec: JobSpec, run_dir: str, workdir: str, claim: LeaseRequest | None = None
) -> SubmitRequest:
    """Return what the satellite is asked to do with the bundle, where no earlier call has made the job."""
    settlement = scheduler.settlement(run_dir, workdir, spec.identity.token, spec.identity.job_name)
    return settlement._replace(
        argv=tuple(scheduler.argv(spec, run_dir)),
        needs=spec.activation.needs,
        limit=scheduler.limit,
        claim=claim,
        tasks=len(spec.array.tasks) if spec.array and settlement.mode == "command" else 1,
        export=spec.export,
        settle_only=False,
    )


def find_job(
    place: Target,
    attempt: Attempt,
    job_name: str,
    *,
    tell: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> JobHandle | None:
    """Return the job of an earlier attempt, or nothing where it surely made none; submits nothing.

    Arguments and errors are those of ``submit``; what may exist all the same is waited out as there.
    """
    if attempt.handle is not None:
        return attempt.handle
    scheduler, news = place.scheduler, "Whether an earlier attempt made a job is not known yet"
    request = scheduler.settlement(attempt.run_dir, place.workdir, attempt.ledger.token, job_name)
    _, reply = _submit(place, request, b"", news, tell=tell, sleep=sleep)
    return None if reply.job_id is None else JobHandle(reply.job_id, attempt.run_dir, "known")


def _submit(
    place: Target,
    request: SubmitRequest,
    packed: bytes,
    news: str,
    *,
    tell: Callable[[str], None],
    sleep: Callable[[float], None],
) -> tuple[float, SubmitReply]:
    """Submit until the reply is one that waiting won't change; return when that was sent, and the reply.

    That nobody knows whether there is a job is waited out as a lost host is.
    """
    pause, unclear = _FIRST_WAIT, 0.0
    while True:
        sent_at = time.time()
        reply = place.satellite.submit(request, packed)
        if reply.job_id is not None or reply.outcome in ("lacking", "taken", "none"):
            return sent_at, reply
        pause = min(reply.retry_after or pause, _LONGEST_WAIT)
        reason = _reason_to_wait(reply, place.satellite.host.name)
        unclear = unclear + pause if reply.outcome == "uncertain" else 0.0
        if unclear > place.watcher.park_timeout:
            error = HostUnreachableError(f"{news}: {reason}", where=place.satellite.host.name)
            raise parked_too_long(error, unclear)
        tell(f"{news}: {reason}")
        sleep(pause)
        pause *= 2


def _reason_to_wait(reply: SubmitReply, where: str) -> str:
    output = "\n".join(text for text in (reply.stderr.strip(), reply.stdout.strip()) if text)
    if reply.outcome == "rejected":
        rejection = classify_rejection(output)
        if rejection.kind != "limit":
            raise SubmitRejectedError(rejection, where=where)
        said = f"{rejection.message.rstrip('.')}."
        return " ".join(filter(None, (said, rejection.hint, "It is tried again.")))
    return f"{reply.detail or 'the scheduler gave no clear answer'}. {output}".strip()
