"""Runs whose process died, and jobs that nobody follows: found by proof, not by silence.

A run is given up only if the process that is the run worker ran on this machine and is gone, and the run is still not
finished when it is read again after that. A process that ends in good order writes its run's end before it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.cancel import cancel
from dagster_slurm_components.jobs.look import look
from dagster_slurm_components.pipes.launches import Launch, RunHistory, history, record_end
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
    """

    run_id: str
    what: str


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
        children = dg.RunsFilter(tags={_PARENT: run.run_id})
        if _RETRIED in run.tags or instance.get_runs(children, limit=1):
            continue
        if not history(instance, run.run_id).launches:
            continue  # none of ours
        instance.report_run_failed(
            run, "Run retries were to retry this run, and have not. They are told again."
        )
        yield Healed(run.run_id, "Dagster's daemon missed this failure; it is told again to retry the run.")


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
        for launch in _unfinished(history(instance, run.run_id)):
            try:
                done = _cancel(place_of(launch.profile), launch)
            except DagsterSlurmError as error:
                yield Healed(run.run_id, f"The job {launch.identity.job_name} can't be looked at: {error}")
                continue
            record_end(instance, run, launch.identity, "cancelled in Dagster" if done else "over")
            if done:
                yield Healed(run.run_id, f"Cancelled the job {launch.identity.job_name} on {launch.host}.")


def _unfinished(known: RunHistory) -> list[Launch]:
    last = {(launch.identity.step, launch.identity.partition): launch for launch in known.launches}
    return [
        launch
        for (step, _), launch in last.items()
        if launch.ended is None and step not in known.succeeded and launch.supervisor.known_dead()
    ]


def _cancel(place: Target, launch: Launch) -> bool:
    """Cancel a job if it lives; return whether it did."""
    seen = look(place.satellite, place.scheduler, launch.run_dir, launch.identity.token)
    if seen is None or not seen.alive:
        return False
    cancel(place.satellite, place.scheduler, seen.handle, patience=30.0)
    return True
