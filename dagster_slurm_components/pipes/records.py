"""What a run says of its jobs: tags that can be searched for, and lines in its log.

Nothing here is read to decide anything: who owns a job stands in the job's lease.
"""

import logging
import shlex
from collections.abc import Mapping
from pathlib import PurePath

import dagster as dg

from dagster_slurm_components.jobs.model import slug
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.pipes.private import private_parts
from dagster_slurm_components.pipes.step import RUNS, Step, run_of
from dagster_slurm_components.pipes.tags import LEFT
from dagster_slurm_components.spec.profiles import chosen_profile

with private_parts("keeps EngineEventData in another place"):
    # `report_engine_event` is public and takes metadata only inside this class, which dagster (1.13) does not export.
    from dagster._core.events import EngineEventData

PROFILE = "slurm/profile"
"""Tag of a run that has jobs: its process's profile. Each other one in which it has some has ``slurm/profile/NAME``."""
JOB = "slurm/job_id"
"""Tag of a run: its first job. The jobs of other steps have ``slurm/job_id/STEP``."""
WORKER = ".dagster/slurm_worker"
"""Tag of a run: the process whose end is the run's. Dagster's UI leaves out tags that begin so (dagster 1.13)."""
_MOST_JOBS = 20
_TAGGED: set[tuple[str, str]] = set()
"""What needs no further tag: runs with a profile, by the tag that names it, and runs (with `JOB`) that have as many as
they get. To look that up for each of 1,000 steps in one process costs a tenth of what they cost in all."""
"""Tags of jobs that one run gets: they are all shown on its page."""
_TEMPORARY = ".tmp_dagster_home_"
"""How the folder begins in which `dg` keeps runs where DAGSTER_HOME is not set; it is removed at the end (1.13)."""


def tell(step: Step, text: str, metadata: Mapping[str, str | dg.MetadataValue] | None = None) -> None:
    """Write a line into the run's log, where it stands with its metadata, and to the step's console."""
    if step.run is None:
        step.context.log.info(text)
        return
    values = {
        key: dg.MetadataValue.text(value) if isinstance(value, str) else value
        for key, value in (metadata or {}).items()
    }
    event = dg.DagsterEvent(
        dg.DagsterEventType.ENGINE_EVENT.value,
        step.run.job_name,
        step_key=step.key,
        message=text,
        event_specific_data=EngineEventData(values),
    )
    # Not `report_engine_event`: that one is not seen in the terminal of `dg launch`.
    step.context.log.log_dagster_event(logging.INFO, text, event)


def left_job(job_id: str, run_id: str, profile: str, *, kept: bool = True) -> str:
    """Return what a step says as it leaves a job that goes on, and whose run Dagster keeps; see ``keeps_runs``."""
    left = f"This step ends; job {job_id} goes on."
    cancel = "To cancel it: " + shlex.join(["dg-slurm", "jobs", "cancel", job_id, "--profile", profile])
    if not kept:
        lost = (
            "Dagster keeps no record of this run, as without DAGSTER_HOME, so no run can collect its results."
        )
        return f"{left} {lost}\n{cancel}"
    return f"{left}\nTo collect its results: dg-slurm attach {run_id}\n{cancel}"


def keeps_runs(instance: dg.DagsterInstance) -> bool:
    """Whether an instance is still there when the command that opened it is over."""
    if not instance.is_persistent:
        return False
    return not PurePath(instance.root_directory).name.startswith(_TEMPORARY)


def tag_run(step: Step, profile: str, *, left: bool = False) -> None:
    """Mark the run as one that has jobs, and by its worker where that is known, before the first job is submitted."""
    tag, chosen = LEFT if left else PROFILE, chosen_profile()
    if (step.run_id, f"{tag} {profile}") not in _TAGGED:
        own, other = ways_to_tag(tag, profile)
        # The end of a delegated step's process is not the end of its run.
        worker = {} if step.delegated else {WORKER: written(step.owner)}
        _add(step, {PROFILE: chosen, **(own if profile == chosen else other), **worker})
        _TAGGED.add((step.run_id, f"{tag} {profile}"))


def ways_to_tag(tag: str, profile: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the tags of a run with jobs in a profile: of one whose process has that, and of one with another."""
    return {tag: profile}, {f"{tag}/{profile}": profile}


def tag_job(step: Step, job_id: str) -> None:
    """Make a job's id searchable from the moment of its submission."""
    if step.run is None or (step.run_id, JOB) in _TAGGED:
        return
    # A retry by Dagster's daemon begins with the tags of the run that it retries (dagster 1.13).
    inherited = _tags(step, step.run.parent_run_id)
    with RUNS:
        tags = _tags(step, step.run_id)
        jobs = [key for key, value in tags.items() if key.startswith(JOB) and inherited.get(key) != value]
        if len(jobs) < _MOST_JOBS:
            first = JOB not in jobs or tags[JOB] == job_id
            _add(step, {JOB if first else f"{JOB}/{slug(step.key)}": job_id})
        else:
            _TAGGED.add((step.run_id, JOB))


def _tags(step: Step, run_id: str | None) -> Mapping[str, str]:
    run = run_of(step.instance, run_id) if run_id is not None else None
    return run.tags if run is not None else {}


def _add(step: Step, tags: Mapping[str, str]) -> None:
    if step.run is None:
        return
    with RUNS:
        present = _tags(step, step.run_id)
        if any(present.get(key) != value for key, value in tags.items()):
            step.instance.add_run_tags(step.run_id, tags)


def written(owner: Owner) -> str:
    """Return a process as the tag of its run keeps it; with the run, for a retry begins with its parent's tags."""
    return " ".join((owner.run_id, owner.node, owner.pid_namespace or "-", str(owner.pid), owner.start))


def worker(run: dg.DagsterRun) -> Owner | None:
    """Return the process whose end is the end of a run; nothing where it had no job, or the tag is another's."""
    words = run.tags.get(WORKER, "").split(" ")
    if len(words) != 5 or words[0] != run.run_id or not words[3].isdigit():
        return None
    _, node, namespace, pid, start = words
    return Owner(run.run_id, node, "" if namespace == "-" else namespace, int(pid), start)
