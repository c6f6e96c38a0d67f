"""Ending a job: its lease says so first, then it is cancelled, and its end is confirmed."""

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.satellite.calls import LeaseRenewal
from dagster_slurm_components.jobs.events import Ended, WatchFailed
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, CANCELLED, Attempt
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.submit import find_job
from dagster_slurm_components.jobs.target import Target

_PAUSE = 1.0
_ANSWER = 120.0
"""Seconds to go on asking while the host or the scheduler does not answer."""
_TERM_GRACE = 10.0
_END = 90.0
_END_OF_ANOTHER = 900.0
"""Seconds to wait for the end of a job that is in the way: of one that was cancelled while it waited Slurm's accounting
alone tells, which may lag, and which many processes ask within one budget."""
_SHORT = 0.01
_LISTEN = 0.5

Result = TypeVar("Result")
Follow = Callable[[float], Ended | None]
"""Follows a job for at most so many seconds; returns its end, once it is there."""


class NotEndedError(DagsterSlurmError):
    """A job was cancelled, and its end could not be confirmed."""


class LeaseLostError(DagsterSlurmError):
    """Somebody else has taken the job over: it is theirs to end."""


def cancel(place: Target, handle: JobHandle, *, patience: float = _ANSWER, force: bool = False) -> None:
    """Ask for the end of exactly one job, for at most ``patience`` seconds; whoever watches the job sees its end.

    Raises:
        HostUnreachableError: Host or scheduler gave no answer in all that time; the job may go on.
        HostRefusedError: Nobody there can end it.
    """
    _patiently(lambda: place.scheduler.cancel(place.satellite, handle, force=force), patience)


def _patiently(ask: Callable[[], Result], patience: float) -> Result:
    """Ask a host for something that may be asked twice, until it answers."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return ask()
        except HostUnreachableError:
            if time.monotonic() + _PAUSE > deadline:
                raise
            time.sleep(_PAUSE)


def end_job(
    place: Target, handle: JobHandle, epoch: int, follow: Follow, *, patience: float = _END
) -> Ended | None:
    """Cancel a job whose lease is ours; return its end, or nothing where that stays out: it is marked then.

    Raises:
        LeaseLostError: Its lease is another's.
        HostUnreachableError: Nobody answered for two minutes.
        HostRefusedError: Nobody there can end it.
    """
    if not _patiently(lambda: _mark(place, handle, epoch), _ANSWER):
        raise LeaseLostError(f"job {handle.job_id} is followed by somebody else by now")
    cancel(place, handle)
    place.watcher.cancelled(handle)
    ended = follow(_TERM_GRACE)
    if ended is None:
        cancel(place, handle, force=True)
        ended = follow(patience)
    if ended is not None:
        word = ended.observation.state
        with contextlib.suppress(SatelliteError):  # the job is over: the sensor closes its lease
            _patiently(lambda: place.leases.change(handle.run_dir, epoch, CANCELLED, outcome=word), _ANSWER)
    return ended


def _mark(place: Target, handle: JobHandle, epoch: int) -> bool:
    """Write down that a job is to be cancelled; return whether it is ours."""
    try:
        return place.leases.change(handle.run_dir, epoch, CANCEL_WANTED) is not None
    except SatelliteError:
        # A full disk, which a person ends by cancelling what fills it. Reading needs no room there.
        _, ((newest, _),) = place.satellite.follow([], [LeaseRenewal(handle.run_dir, epoch)], total=0)
        return newest == epoch


def end_attempt(
    place: Target,
    attempt: Attempt,
    owner: Owner,
    job_name: str,
    *,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Take an attempt over, end its job if there is one, and close its lease.

    By its name the job is found where its id is not known. Returns whether this was done; if not, somebody else
    has changed the lease meanwhile. What ``sleep`` raises ends the waiting.

    Raises:
        NotEndedError: The job was cancelled, and its end is not confirmed.
        HostError: The host gives no answer.
    """
    state = CANCELLED if attempt.lease.outcome is not None else CANCEL_WANTED
    lease = place.leases.take(attempt, owner, state=state)
    if lease is None or lease.state == CANCELLED:
        return lease is not None
    handle = find_job(place, attempt, job_name, tell=tell, sleep=sleep)
    if handle is None:
        place.leases.change(attempt.run_dir, lease.epoch, CANCELLED)
        return True
    tell(f"Job {handle.job_id} in {attempt.run_dir} is cancelled before another one is submitted.")
    watch = place.watcher.watch(handle)

    def follow(seconds: float) -> Ended | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            sleep(_SHORT)  # an interrupt of the step ends the waiting, too
            match watch.next(timeout=min(left, _LISTEN)):
                case WatchFailed(error=error):
                    raise error
                case Ended() as ended:
                    return ended
        return None

    with contextlib.closing(watch):
        if end_job(place, handle, lease.epoch, follow, patience=_END_OF_ANOTHER) is not None:
            return True
    raise NotEndedError(
        f"job {handle.job_id} was cancelled before another one is submitted, and does not end",
        where=place.satellite.host.name,
        hint=f"Its run directory is {attempt.run_dir}. Run the step again once the job is gone.",
    )
