"""Launches: what Dagster's event log keeps of each submission, so that a later process finds the job again.

A launch is written down before anything is sent. So there is no moment at which a job exists that the event log
can't name: whoever takes over continues the same identity, and submitting that again gives the same job.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.satellite.processes import identify as process_starts
from dagster_slurm_components.jobs.model import JobIdentity

try:
    # `report_engine_event` is public and takes metadata only inside this class, which dagster (1.13) does not export.
    from dagster._core.events import EngineEventData
except ImportError as error:
    raise DagsterSlurmError(
        f"dagster {dg.__version__} keeps EngineEventData in another place than 1.13 did",
        hint='Install a version that this one was made for: pip install "dagster>=1.13,<2".',
    ) from error

LAUNCH = "dagster_slurm/launch"
"""Metadata key of the engine event of a launch."""
ENDED = "dagster_slurm/ended"
"""Metadata key of the engine event of a job that ended without success."""

_MOST_ANCESTORS = 64
_SETTLE = 1.0
"""Seconds after which what one run wrote into the event log is read by another."""
_ROOT = "dagster/root_run_id"
_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_EVENTS = {
    dg.DagsterEventType.ENGINE_EVENT,
    dg.DagsterEventType.STEP_WORKER_STARTED,
    dg.DagsterEventType.STEP_SUCCESS,
}


@dataclass(frozen=True)
class Supervisor:
    """The process whose end is the end of a run.

    Attributes:
        node: Name of its machine.
        pid: Its number there.
        start: Tells it from a later process of that number.
    """

    node: str
    pid: int
    start: str

    def known_dead(self) -> bool:
        """Whether it ran on this machine and is gone; of other machines nothing is known."""
        return self.node == os.uname().nodename and process_starts([self.pid]).get(self.pid) != self.start


@dataclass(frozen=True)
class Launch:
    """One submission.

    Attributes:
        identity: Which job; submitting it again gives the same.
        profile: The profile's name.
        host: The host's name.
        run_dir: The run directory there.
        fingerprint: Hash of what was submitted.
        supervisor: The process of the run that followed the job.
        retries: How often each outcome has been answered by another attempt.
        changed: Slurm options that a retry policy changed.
        ended: How the job ended, once it has without success.
        recorded: When it was written down, in seconds since the epoch.
    """

    identity: JobIdentity
    profile: str
    host: str
    run_dir: str
    fingerprint: str
    supervisor: Supervisor
    retries: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)
    ended: str | None = None
    recorded: float = field(default=0.0, compare=False)

    def same_content(self, other: Launch) -> bool:
        """Whether both stand for the same content in the same place."""
        return (self.profile, self.host, self.fingerprint) == (other.profile, other.host, other.fingerprint)


def record(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    launch: Launch,
    *,
    adopted: bool,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Write a launch down, before it is submitted.

    Two retries of one run may do so in the same moment, each before it could read of the other. So each writes, waits
    until the other's word must be there too, and both then find the same one to be first.

    Args:
        instance: Dagster's instance.
        run: The run.
        launch: What it submits or takes up.
        adopted: Whether the job may exist already.
        pause: Waits so many seconds.

    Raises:
        Failure: Another run follows the same job already, as when a person and Dagster's daemon retry one run.
    """
    if adopted:
        _refuse_for(_rival(instance, run, launch), launch)
    verb = "Follows on with" if adopted else "Submits"
    _report(
        instance,
        run,
        launch.identity.step,
        f"{verb} the job {launch.identity.job_name} on {launch.host} (profile {launch.profile})",
        {LAUNCH: json.dumps(_written(launch)), "job/run_directory": launch.run_dir},
    )
    if adopted and _family(instance, run, _UNDER_WAY):
        pause(_SETTLE)
        mine = history(instance, run.run_id).last(launch.identity.step, launch.identity.partition)
        _refuse_for(_rival(instance, run, launch, before=mine), launch)


def _refuse_for(other: str | None, launch: Launch) -> None:
    if other is not None:
        raise dg.Failure(
            f"Run {other} follows the job {launch.identity.job_name} already; two runs would report its results "
            "twice. If nothing of that run lives any more, terminate it in Dagster and run this one again.",
            allow_retries=False,
        )


def _rival(
    instance: dg.DagsterInstance, run: dg.DagsterRun, launch: Launch, *, before: Launch | None = None
) -> str | None:
    """Return another retry that took the same job up and is under way, for all that is known.

    Args:
        instance: Dagster's instance.
        run: The run that asks.
        launch: The job.
        before: Only one that was written down before this launch of the run counts.
    """
    for other in _family(instance, run, _UNDER_WAY):
        for theirs in history(instance, other.run_id).launches:
            if theirs.identity != launch.identity or theirs.supervisor.known_dead():
                continue
            if before is None or (theirs.recorded, other.run_id) < (before.recorded, run.run_id):
                return other.run_id
    return None


def taken_over(instance: dg.DagsterInstance, run: dg.DagsterRun, launch: Launch) -> bool:
    """Whether another retry of the same run follows the job, has collected its results or knows its end."""
    for other in _family(instance, run):
        known = history(instance, other.run_id)
        theirs = known.last(launch.identity.step, launch.identity.partition)
        if theirs is None or theirs.identity.run_id != launch.identity.run_id:
            continue
        same = theirs.identity == launch.identity
        follows = same and other.status in _UNDER_WAY and not theirs.supervisor.known_dead()
        newer = theirs.identity.attempt > launch.identity.attempt
        if follows or newer or theirs.ended is not None or launch.identity.step in known.succeeded:
            return True
    return False


def _family(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    statuses: Sequence[dg.DagsterRunStatus] | None = None,
) -> list[dg.DagsterRun]:
    """Return the other runs that re-execute the same first run."""
    retries = dg.RunsFilter(tags={_ROOT: run.root_run_id or run.run_id}, statuses=statuses)
    return [other for other in instance.get_runs(retries) if other.run_id != run.run_id]


def record_end(instance: dg.DagsterInstance, run: dg.DagsterRun, identity: JobIdentity, how: str) -> None:
    """Write down that a job ended without success, so that no later run takes it up again."""
    content = json.dumps({"token": identity.token, "ended": how})
    _report(instance, run, identity.step, f"The job {identity.job_name} ended: {how}", {ENDED: content})


def tell(instance: dg.DagsterInstance, run: dg.DagsterRun, step: str, text: str) -> None:
    """Write a sentence for a person into a run's log."""
    _report(instance, run, step, text, {})


def _report(
    instance: dg.DagsterInstance, run: dg.DagsterRun, step: str, text: str, metadata: Mapping[str, str]
) -> None:
    values = {key: dg.MetadataValue.text(value) for key, value in metadata.items()}
    instance.report_engine_event(text, run, EngineEventData(metadata=values), step_key=step)


@dataclass(frozen=True)
class RunHistory:
    """What one run's event log says about its jobs.

    Attributes:
        launches: In order, each with its end where that is known.
        succeeded: Steps that succeeded.
        workers: Process numbers of step workers, by step.
    """

    launches: Sequence[Launch]
    succeeded: frozenset[str]
    workers: Mapping[str, frozenset[int]]

    def last(self, step: str, partition: str | None) -> Launch | None:
        """Return the newest launch of a step and partition."""
        found = [
            launch
            for launch in self.launches
            if (launch.identity.step, launch.identity.partition) == (step, partition)
        ]
        return found[-1] if found else None


def history(instance: dg.DagsterInstance, run_id: str) -> RunHistory:
    """Read what a run's event log says about its jobs."""
    launches: list[Launch] = []
    ended: dict[str, str] = {}
    succeeded: set[str] = set()
    workers: dict[str, set[int]] = {}
    for entry in instance.all_logs(run_id, of_type=_EVENTS):
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type is dg.DagsterEventType.STEP_SUCCESS:
            succeeded.add(event.step_key or "")
            continue
        if event.event_type is dg.DagsterEventType.STEP_WORKER_STARTED:
            workers.setdefault(event.step_key or "", set()).add(event.pid or 0)
            continue
        metadata = event.engine_event_data.metadata
        if LAUNCH in metadata:
            launches.append(_read(str(metadata[LAUNCH].value), entry.timestamp))
        if ENDED in metadata:
            said = json.loads(str(metadata[ENDED].value))
            ended[said["token"]] = said["ended"]
    known = [replace(launch, ended=ended.get(launch.identity.token)) for launch in launches]
    found = {step: frozenset(pids) for step, pids in workers.items()}
    return RunHistory(known, frozenset(succeeded), found)


def _written(launch: Launch) -> dict[str, object]:
    """Return what is written of a launch; the rest the event log itself knows."""
    return {name: value for name, value in asdict(launch).items() if name not in ("ended", "recorded")}


def _read(text: str, recorded: float) -> Launch:
    raw = json.loads(text)
    raw["identity"] = JobIdentity(**raw["identity"])
    raw["supervisor"] = Supervisor(**raw["supervisor"])
    return Launch(**{**raw, "recorded": recorded})


def predecessors(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[RunHistory]:
    """Yield the histories of the runs that this run re-executes, the newest first."""
    seen = {run.run_id}
    parent = run.parent_run_id
    while parent and parent not in seen and len(seen) < _MOST_ANCESTORS:
        seen.add(parent)
        yield history(instance, parent)
        above = instance.get_run_by_id(parent)
        parent = above.parent_run_id if above else None


def last_launch(
    instance: dg.DagsterInstance, run: dg.DagsterRun, own: RunHistory, step: str, partition: str | None
) -> Launch | None:
    """Return the launch that a step continues: of an earlier try in this run, or of the runs it re-executes.

    A step that succeeded in an earlier run is not continued: running it again is meant to do the work again.
    """
    found = own.last(step, partition)
    if found is not None:
        return found
    for earlier in predecessors(instance, run):
        if step in earlier.succeeded:
            return None
        found = earlier.last(step, partition)
        if found is not None:
            return found
    return None


def this_supervisor(*, step_worker: bool) -> Supervisor:
    """Return the process whose end is the end of this run: this one, or the parent of a step's own process."""
    # Not getppid(): with the start method `forkserver` that is the server, which outlives no run but says so later.
    parent = multiprocessing.parent_process()
    pid = parent.pid if step_worker and parent is not None and parent.pid else os.getpid()
    return Supervisor(os.uname().nodename, pid, process_starts([pid]).get(pid, ""))
