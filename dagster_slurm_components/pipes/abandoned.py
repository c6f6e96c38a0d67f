"""Jobs that an interrupted `dg launch` left behind: the next launch of the same takes one up instead of a second job.

Nobody else retries such a run: Dagster's daemon and UI re-execute only what they launched (1.13). What counts is the
lease on the host: same step, same partition, same content, and an owner that is over for good.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace

import dagster as dg

from dagster_slurm_components.jobs.lease import ENDED, FOLLOWING, Attempt
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes.claim import JobCall, claim_after_others
from dagster_slurm_components.pipes.records import PROFILE, keeps_runs
from dagster_slurm_components.pipes.runs import UNDER_WAY, children, end_if_dead
from dagster_slurm_components.pipes.step import RUNS

_MOST_RUNS = 50
"""The newest runs of a profile that are looked through for those that a terminal left behind."""
_STOPPED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, *UNDER_WAY]
_LOOK = threading.Lock()
_OPEN: dict[tuple[str, str], Sequence[Attempt]] = {}
"""The open jobs that were left in a profile when a run's first step looked: all its steps share that one call."""


def claim_abandoned(call: JobCall, first: Claim) -> Claim | None:
    """Return the claim to the one job that an interrupted launch left of this very call; nothing where there is none.

    Two processes that find the same job are told apart by its lease, as everywhere.
    """
    run, log = call.step.run, call.step.context.log
    if (
        type(call) is not JobCall
        or run is None
        or not _is_of_terminal(run)
        or not call.step.context.has_assets_def
    ):
        return None
    wanted = [
        (attempt, same) for attempt in _abandoned(call) if (same := _same_call(call, attempt)) is not None
    ]
    found = []
    for attempt, identity in wanted:
        owner = attempt.lease.owner.run_id if attempt.lease.owner else ""
        what = f"Job {attempt.ledger.job_id}, which the interrupted run {owner} left behind,"
        why = call.unwanted(attempt.lease) or _newer_input(call, attempt, identity.run_id)
        if why is None:
            found.append((attempt, identity, what))
        else:
            log.warning(
                f"{what} is not taken up: {why}. To cancel it: dg-slurm jobs cancel {attempt.ledger.job_id} "
                f"--profile {call.resolved.profile.name}"
            )
    if len(found) > 1:
        log.warning(
            f"{' '.join(what for *_, what in found)} are the same job: none is taken up. See dg-slurm jobs list."
        )
    if len(found) != 1:
        return None
    ((_, identity, what),) = found
    log.info(
        f"{what} has the same content, and nobody collected its results: this run does. The next one makes it anew."
    )
    claim = claim_after_others(call, replace(first, identity=identity))
    return claim if claim.adopted else None


def _is_of_terminal(run: dg.DagsterRun) -> bool:
    """Whether a run was made by `dg launch` or `dg-slurm attach`."""
    return run.remote_job_origin is None and run.job_code_origin is not None


def _abandoned(call: JobCall) -> Sequence[Attempt]:
    """Return the attempts of this profile whose owners are over for good; no host is asked where no run is."""
    instance, profile = call.step.instance, call.resolved.profile.name
    if not keeps_runs(instance):
        return ()
    with _LOOK:
        key = (call.step.run_id, profile)
        if key not in _OPEN:
            left = _runs_left(instance, profile)
            attempts = call.place.leases.open()[0] if left else ()
            _OPEN[key] = [each for each in attempts if each.lease.owner and each.lease.owner.run_id in left]
        return _OPEN[key]


def _runs_left(instance: dg.DagsterInstance, profile: str) -> frozenset[str]:
    """Return the runs of terminals that stopped before they were done, and that no run under way goes on with."""
    wanted = dg.RunsFilter(tags={PROFILE: profile}, statuses=_STOPPED)
    with RUNS:
        runs = [run for run in instance.get_runs(wanted, limit=_MOST_RUNS) if _is_of_terminal(run)]
        return frozenset(
            run.run_id
            for run in runs
            if (run.is_finished or end_if_dead(instance, run) is not None)
            and all(child.is_finished for child in children(instance, run))
        )


def _same_call(call: JobCall, attempt: Attempt) -> JobIdentity | None:
    """Return who a job is, if it is of the same step, partition and call, in whatever family of runs."""
    lease, folder = attempt.lease, f"{call.place.workdir}/"
    if lease.state not in (FOLLOWING, ENDED) or not lease.open or lease.note.elements:
        return None
    place = attempt.run_dir.removeprefix(folder)
    root = place.split("/")[1] if place.startswith("runs/") else ""
    identity = replace(call.identity, run_id=root, attempt=attempt.number)
    return identity if root and str(identity.folder) == place else None


def _newer_input(call: JobCall, attempt: Attempt, root: str) -> str | None:
    """Return why what a job reads is out of date: something that it depends on was made since its run began."""
    instance, assets = call.step.instance, call.step.context.assets_def
    records = instance.get_run_records(dg.RunsFilter(run_ids=[root]), limit=1)
    began = records[0].start_time if records else None
    if began is None:
        return f"when run {root} began is not known"
    made = set(attempt.lease.note.upstream.values())
    deps = {
        dep.asset_key
        for key in call.step.context.selected_asset_keys
        for dep in assets.specs_by_key[key].deps
    }
    for key in sorted(deps - set(assets.specs_by_key)):
        event = instance.get_latest_materialization_event(key)
        if event is not None and event.timestamp > began and event.run_id not in made:
            return f"{key.to_user_string()} was made anew since"
    return None
