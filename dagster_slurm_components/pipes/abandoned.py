"""Jobs that an interrupted `dg launch` left behind: the next launch of the same takes one up instead of a second job.

Nobody else retries such a run: Dagster's daemon and UI re-execute only what they launched (1.13). What counts is the
lease on the host: same step, same partition, same content, and an owner that is over for good.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import dagster as dg

from dagster_slurm_components.jobs.lease import ENDED, FOLLOWING, Attempt
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.takeover import Claim
from dagster_slurm_components.pipes.claim import JobCall, claim_after_others
from dagster_slurm_components.pipes.records import PROFILE, keeps_runs, ways_to_tag
from dagster_slurm_components.pipes.runs import UNDER_WAY, children, end_if_dead
from dagster_slurm_components.pipes.step import location_of

_MOST_RUNS = 50
_STOPPED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, *UNDER_WAY]
_LOOK = threading.Lock()
_LEFT: dict[tuple[str, str], Sequence[Attempt]] = {}
"""What was left in a profile when a run's first step looked: all its steps share that one call."""


def claim_abandoned(call: JobCall, first: Claim) -> Claim | None:
    """Return the claim to the one job that an interrupted launch left of this very call; nothing where there is none.

    Two processes that find the same job are told apart by its lease, as everywhere.
    """
    step, log = call.step, call.step.context.log
    if type(call) is not JobCall or not _is_of_terminal(step.run) or not step.context.has_assets_def:
        return None
    found: list[tuple[JobIdentity, str]] = []
    for attempt in _abandoned(call):
        identity, lease, job_id = _same_call(call, attempt), attempt.lease, attempt.ledger.job_id
        if identity is None or lease.owner is None:
            continue
        what = f"Job {job_id}, which the interrupted run {lease.owner.run_id} left behind,"
        why = call.unwanted(lease) or _newer_input(call, attempt, identity.run_id)
        if why is None:
            found.append((identity, what))
        else:
            cancel = f"dg-slurm jobs cancel {job_id} --profile {call.resolved.profile.name}"
            log.warning(f"{what} is not taken up: {why}. To cancel it: {cancel}")
    if len(found) != 1:
        if found:
            log.warning(f"{' '.join(what for _, what in found)} are the same job: none is taken up.")
        return None
    ((identity, what),) = found
    log.info(f"{what} has the same content, and nobody collected its results: this run does.")
    claim = claim_after_others(call, replace(first, identity=identity))
    return claim if claim.adopted else None


def _is_of_terminal(run: dg.DagsterRun | None) -> bool:
    """Whether a run was made by `dg launch` or `dg-slurm attach`."""
    return run is not None and run.remote_job_origin is None and run.job_code_origin is not None


def _abandoned(call: JobCall) -> Sequence[Attempt]:
    """Return the attempts of this profile whose owners are over for good; no host is asked where no run is."""
    instance, key = call.step.instance, (call.step.run_id, call.resolved.profile.name)
    with _LOOK:
        if key not in _LEFT:
            stopped = _stopped(call, key[1]) if keeps_runs(instance) else {}
            attempts = call.place.leases.open()[0] if stopped else ()
            runs = [stopped.get(each.lease.owner.run_id) if each.lease.owner else None for each in attempts]
            _LEFT[key] = [
                attempt
                for attempt, run in zip(attempts, runs, strict=True)
                if run is not None and all(child.is_finished for child in children(instance, run))
            ]
        return _LEFT[key]


def _stopped(call: JobCall, profile: str) -> Mapping[str, dg.DagsterRun]:
    """Return this location's runs of terminals, the newest, that stopped before they were done, by their ids."""
    instance, location = call.step.instance, location_of(call.step.run)
    filters = [dg.RunsFilter(tags=tags, statuses=_STOPPED) for tags in ways_to_tag(PROFILE, profile)]
    return {
        run.run_id: run
        for wanted in filters
        for run in filter(_is_of_terminal, instance.get_runs(wanted, limit=_MOST_RUNS))
        if location_of(run) == location and (run.is_finished or end_if_dead(instance, run) is not None)
    }


def _same_call(call: JobCall, attempt: Attempt) -> JobIdentity | None:
    """Return who a job is, if it is of the same step, partition and call, in whatever family of runs."""
    lease, (_, _, place) = attempt.lease, attempt.run_dir.partition(f"{call.place.workdir}/runs/")
    identity = replace(call.identity, run_id=place.split("/")[0] or "-", attempt=attempt.number)
    is_one = lease.open and lease.state in (FOLLOWING, ENDED) and not lease.note.elements
    return identity if is_one and str(identity.folder) == f"runs/{place}" else None


def _newer_input(call: JobCall, attempt: Attempt, root: str) -> str | None:
    """Return why what a job reads is out of date: something that it depends on was made since its run began."""
    context, instance = call.step.context, call.step.instance
    records = instance.get_run_records(dg.RunsFilter(run_ids=[root]), limit=1)
    began = records[0].start_time if records else None
    if began is None:
        return f"when run {root} began is not known"
    specs = context.assets_def.specs_by_key
    deps = {dep.asset_key for key in context.selected_asset_keys for dep in specs[key].deps} - specs.keys()
    for key in sorted(deps):
        event = instance.get_latest_materialization_event(key)
        if event and event.timestamp > began and event.run_id not in attempt.lease.note.upstream.values():
            return f"{key.to_user_string()} was made anew since"
    return None
