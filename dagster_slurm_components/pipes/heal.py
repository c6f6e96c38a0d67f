"""Runs whose process died, and jobs that nobody follows: found by proof, not by silence.

A run is given up only if the process that is the run worker ran on this machine and is gone, and the run is still not
finished when it is read again after that. A process that ends in good order writes its run's end before it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.cancel import cancel
from dagster_slurm_components.jobs.look import Seen, look
from dagster_slurm_components.pipes.launches import (
    Launch,
    RunHistory,
    history,
    record_end,
    taken_over,
    tell,
)
from dagster_slurm_components.pipes.target import Target

_UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_MOST_RUNS = 500

# Dagster's own tags: public in its UI and its API, if not as names in Python (1.13).
_WILL_RETRY, _RETRIED, _PARENT = "dagster/will_retry", "dagster/auto_retry_run_id", "dagster/parent_run_id"

PlaceOf = Callable[[str], Target]
"""Returns the target of a profile, by its name."""


@dataclass(frozen=True)
class Healed:
    """Something that was found.

    Attributes:
        run_id: The run.
        what: What was found and done, for a person.
        again: Whether the next pass finds the same again, as nothing could be done.
    """

    run_id: str
    what: str
    again: bool = False


def dead(known: RunHistory) -> bool:
    """Whether the process of a run is proven to be gone; without any launch nothing is known."""
    return bool(known.launches) and known.launches[-1].supervisor.known_dead()


def heal_dead_runs(instance: dg.DagsterInstance) -> Iterator[Healed]:
    """Fail (or finish cancelling) the runs whose process died, so that a retry can take up their jobs."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY), limit=_MOST_RUNS):
        healed = heal_if_dead(instance, run.run_id)
        if healed is not None:
            yield healed


def heal_if_dead(instance: dg.DagsterInstance, run_id: str) -> Healed | None:
    """Fail a run whose process is proven dead; a run of which that is not known is left alone."""
    known = history(instance, run_id)
    if not dead(known):
        return None
    run = instance.get_run_by_id(run_id)  # read after the look at the process
    if run is None or run.status not in _UNDER_WAY:
        return None
    who = known.launches[-1].supervisor
    text = f"The run worker (process {who.pid} on {who.node}) is gone."
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, f"{text} The run was being cancelled.")
        return Healed(run_id, f"{text} The run is marked as cancelled.")
    instance.report_run_failed(run, f"{text} Its jobs live on: a retry takes them up.")
    return Healed(run_id, f"{text} The run is marked as failed, so that a retry takes up its jobs.")


def remind_of_retries(
    instance: dg.DagsterInstance, *, updated_after: datetime, updated_before: datetime
) -> Iterator[Healed]:
    """Tell Dagster's daemon again of failed runs that it was to retry and did not.

    A run's failure is written to the event log first and to the run a moment later. A daemon that looks in between
    takes the run for one that still runs, and its cursor passes the event for ever (dagster 1.13.27). A second
    event of the same failure makes it look again.

    Args:
        instance: Dagster's instance.
        updated_after: Runs that changed last before this moment are not looked at.
        updated_before: Nor are runs that changed after it: the daemon needs its time.
    """
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        tags={_WILL_RETRY: "true"},
        updated_after=updated_after,
        updated_before=updated_before,
    )
    for run in instance.get_runs(wanted, limit=_MOST_RUNS):
        if _followed_on(instance, run):
            continue
        if not history(instance, run.run_id).launches:
            continue  # none of ours
        instance.report_run_failed(
            run, "Run retries were to retry this run, and have not. They are told again."
        )
        yield Healed(run.run_id, "Dagster's daemon missed this failure; it is told again to retry the run.")


def _followed_on(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether another run retries or re-executes this one."""
    children = dg.RunsFilter(tags={_PARENT: run.run_id})
    return _RETRIED in run.tags or bool(instance.get_runs(children, limit=1))


def failed_runs(
    instance: dg.DagsterInstance, *, updated_after: datetime, updated_before: datetime
) -> Sequence[dg.DagsterRun]:
    """Return the failed runs that changed last between two moments and that no retry is promised for."""
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE], updated_after=updated_after, updated_before=updated_before
    )
    runs = instance.get_runs(wanted, limit=_MOST_RUNS)
    return [run for run in runs if run.tags.get(_WILL_RETRY) != "true"]


def tell_of_left_jobs(
    instance: dg.DagsterInstance, place_of: PlaceOf, run: dg.DagsterRun
) -> Iterator[Healed]:
    """Tell, here and in its own log, of the jobs of a failed run that go on or did their work and that nobody collects.

    Whether that work is still wanted is for a person to say, so nothing is done to them. A run that somebody retried
    has handed its jobs on.

    Raises:
        DagsterSlurmError: The host of such a job gives no answer.
    """
    if _followed_on(instance, run):
        return
    for launch in _open(history(instance, run.run_id)):
        if taken_over(instance, run, launch):
            continue
        place = place_of(launch.profile)
        seen = look(place.satellite, place.scheduler, launch.run_dir, launch.identity.token)
        if seen is None or seen.ended_badly:
            continue
        text = _left(seen, launch, run.run_id)
        tell(instance, run, launch.identity.step, text)
        yield Healed(run.run_id, text)


def _left(seen: Seen, launch: Launch, run_id: str) -> str:
    job, where = seen.handle.job_id, f"on {launch.host} (profile {launch.profile})"
    collect = f"`dg-slurm attach {run_id}`, or a retry of this run in Dagster,"
    if seen.alive:
        end = f"`dg-slurm jobs cancel {job} --profile {launch.profile}` ends it"
        return f"Job {job} {where} goes on, and no run follows it: {collect} takes it up; {end}."
    return f"Job {job} {where} has ended, and no run collected its results: {collect} does."


def cancel_jobs_of_cancelled_runs(
    instance: dg.DagsterInstance, place_of: PlaceOf, *, updated_after: datetime
) -> Iterator[Healed]:
    """Cancel the jobs of runs that were marked as cancelled while no process followed them.

    Args:
        instance: Dagster's instance.
        place_of: Finds the target of a profile.
        updated_after: Runs that ended before this moment are not looked at again.
    """
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.CANCELED], updated_after=updated_after)
    for run in instance.get_runs(wanted, limit=_MOST_RUNS):
        for launch in _open(history(instance, run.run_id)):
            if not launch.supervisor.known_dead():
                continue
            try:
                done = _cancel(place_of(launch.profile), launch)
            except DagsterSlurmError as error:
                text = f"The job {launch.identity.job_name} can't be looked at: {error}"
                yield Healed(run.run_id, text, again=True)
                continue
            record_end(instance, run, launch.identity, "cancelled in Dagster" if done else "over")
            if done:
                yield Healed(run.run_id, f"Cancelled the job {launch.identity.job_name} on {launch.host}.")


def _open(known: RunHistory) -> list[Launch]:
    """Return the newest launch of each step and partition, without those whose end is known."""
    last = {(launch.identity.step, launch.identity.partition): launch for launch in known.launches}
    return [
        launch for (step, _), launch in last.items() if launch.ended is None and step not in known.succeeded
    ]


def _cancel(place: Target, launch: Launch) -> bool:
    """Cancel a job if it lives; return whether it did."""
    seen = look(place.satellite, place.scheduler, launch.run_dir, launch.identity.token)
    if seen is None or not seen.alive:
        return False
    cancel(place.satellite, place.scheduler, seen.handle, patience=30.0)
    return True
