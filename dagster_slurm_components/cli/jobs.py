"""``dg-slurm jobs``: the jobs of a profile, for people who live in a terminal."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.attach import attach
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.ending import cancel as cancel_job
from dagster_slurm_components.jobs.events import STDERR, STDOUT
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, FOLLOWING
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.records import RunDirectory, observed, run_directories
from dagster_slurm_components.jobs.status import STATUS, StatusRecord, parse_starts
from dagster_slurm_components.jobs.target import Target, target
from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.states import state
from dagster_slurm_components.spec.profiles import load_profile

_ELEMENT = re.compile(r"(?P<job>[^/_]+)_(?P<number>[0-9]+)")
_FILES = ("job.sh", "ledger", "status", "messages.jsonl", "stdout.log", "stderr.log", "lease")
_PIECE = 1024 * 1024
_PAUSE = 1.0
_MOST_STATUS = 256 * 1024


def _target(profile_name: str | None) -> Target:
    return target(load_profile(profile_name, start=Path.cwd()))


@click.group()
def jobs() -> None:
    """See and cancel the jobs of a profile.

    JOB is a job's id (of an element of an array: 123_4), a run's id or its beginning, or a run directory.
    """


jobs.add_command(attach)


@jobs.command("list")
@terminal.profile_argument
@click.option("--all", "also_ended", is_flag=True, help="Jobs that have ended too.")
@terminal.json_option
def list_jobs(profile_name: str | None, also_ended: bool, as_json: bool) -> None:
    """List jobs, the newest last."""
    place = _target(profile_name)
    found = observed(place, run_directories(place))
    rows = [_summary(folder, seen) for folder, seen in found if also_ended or (seen and seen.alive)]
    columns: terminal.Columns = {
        "job": "job_id",
        "state": lambda row: f"{row['state']}, left" if row["left"] else row["state"],
        **{"step": "step", "partition": "partition"},
        "run": lambda row: row["run_id"][:8],
        "attempt": "attempt",
        "submitted": lambda row: terminal.moment(row["submitted"]),
    }
    terminal.print_rows(rows, columns, as_json=as_json)


@jobs.command()
@click.argument("job")
@terminal.profile_option
@terminal.json_option
def show(job: str, profile_name: str | None, as_json: bool) -> None:
    """Show one job: its timeline, why it waits, and its files."""
    place = _target(profile_name)
    folder, seen = _find(place, job)
    # Of the status file what it says, of the others only how long they are.
    lengths = {name: _MOST_STATUS if name == STATUS else 0 for name in _FILES}
    files = place.satellite.read(
        [FileRead(f"{folder.path}/{name}", 0, most) for name, most in lengths.items()]
    )
    starts = parse_starts(files[_FILES.index(STATUS)].data)
    sizes = {name: file.size for name, file in zip(_FILES, files, strict=True) if file.exists}
    timeline = _timeline(folder, starts)
    if as_json:
        events = [{"time": when, "event": what} for when, what in timeline]
        terminal.print_json({**_summary(folder, seen), "timeline": events, "files": sizes})
        return
    click.echo(f"job {folder.ledger.job_id or '-'}: {_state(seen)}\n{_explanation(seen)}".rstrip())
    click.echo(f"run {folder.run_id}, step {folder.step}, attempt {folder.attempt}\n{folder.path}\n")
    terminal.table(["time", "event"], [[terminal.moment(when), what] for when, what in timeline])
    click.echo()
    terminal.table(["file", "bytes"], sizes.items())


@jobs.command()
@click.argument("job")
@terminal.profile_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--stderr", "from_stderr", is_flag=True, help="Print stderr instead of stdout.")
def logs(job: str, profile_name: str | None, follow: bool, from_stderr: bool) -> None:
    """Print what a job wrote."""
    place = _target(profile_name)
    folder, seen = _find(place, job)
    path = f"{folder.path}/{STDERR if from_stderr else STDOUT}"
    offset = 0
    while True:
        # Looked at before reading: what it wrote last must not be missed.
        over = not follow or seen is None or not seen.alive
        offset = _print_from(place, path, offset)
        if over:
            return
        time.sleep(_PAUSE)
        seen = _find(place, folder.path)[1]


@jobs.command()
@click.argument("job")
@terminal.profile_option
def cancel(job: str, profile_name: str | None) -> None:
    """Cancel one job. The step that follows it fails and says so; of a job that was left the sensor does."""
    place = _target(profile_name)
    folder, seen = _find(place, job)
    if seen is None or not seen.alive:
        raise DagsterSlurmError(f"job {folder.ledger.job_id or job} has ended already: {_state(seen)}")
    if _ELEMENT.fullmatch(job) and not _ELEMENT.fullmatch(seen.handle.job_id):
        raise DagsterSlurmError(
            f"one process, {seen.handle.job_id}, runs all elements of this array",
            hint=f"`dg-slurm jobs cancel {seen.handle.job_id}` ends them all.",
        )
    if folder.lease.state == FOLLOWING and folder.lease.epoch:
        # Written first: should this end before it is done, whoever follows the job, or the sensor, does it.
        place.leases.change(folder.path, folder.lease.epoch, CANCEL_WANTED)
    cancel_job(place, seen.handle, patience=60.0)
    then = "; the sensor `slurm_jobs` reports its end" if folder.lease.left else ""
    click.echo(f"job {seen.handle.job_id} is being cancelled{then}")


def _find(place: Target, name: str) -> tuple[RunDirectory, JobInfo | None]:
    """Return the newest job that a person means, or the element of an array: ``123_4``."""
    known = run_directories(place)
    array = _ELEMENT.fullmatch(name)
    if array is not None:
        arrays = [each.element(int(array["number"]), place) for each in known if each.is_job(array["job"])]
        folders = [each for each in arrays if each is not None]
    else:
        folders = _meant(known, name)
    if not folders:
        raise DagsterSlurmError(
            f"no job {name!r} below {place.workdir}",
            where=place.satellite.host.name,
            hint="`dg-slurm jobs list --all` names those there are; `--profile` chooses where to look.",
        )
    if len({folder.step for folder in folders}) > 1:
        steps = ", ".join(f"{folder.step} (job {folder.ledger.job_id})" for folder in folders)
        raise DagsterSlurmError(f"{name!r} has several jobs: {steps}", hint="Name one by its job's id.")
    return observed(place, folders[-1:])[0]


def _meant(known: Sequence[RunDirectory], name: str) -> list[RunDirectory]:
    """Return the run directories of a job, or of one run and those that re-execute it."""
    jobs_named = [each for each in known if each.is_job(name)]
    if jobs_named:
        return jobs_named
    found = [each for each in known if each.runs_named(name)]
    if len({each.run_id for each in found}) > 1:
        runs = sorted(frozenset().union(*(each.runs_named(name) for each in found)))
        raise DagsterSlurmError(
            f"{name!r} names {len(runs)} runs: {', '.join(runs)}", hint="Write more of the id."
        )
    return found


def _print_from(place: Target, path: str, offset: int) -> int:
    stream = sys.stdout.buffer  # a job's output may be no text
    while True:
        piece = place.satellite.read([FileRead(path, offset, _PIECE)])[0]
        stream.write(piece.data)
        stream.flush()
        offset += len(piece.data)
        if not piece.data or offset >= piece.size:
            return offset


def _state(seen: JobInfo | None) -> str:
    return seen.observation.state if seen else "not submitted"


def _explanation(seen: JobInfo | None) -> str:
    if seen is None:
        return ""
    if seen.observation.reason:
        return f"{seen.observation.reason}: {explain(seen.observation.reason).text}"
    row = state(seen.observation.state)
    return f"{row.explanation} {row.advice}".strip() if row.known else ""


def _summary(folder: RunDirectory, seen: JobInfo | None) -> dict[str, Any]:
    return {
        "job_id": folder.ledger.job_id,
        "state": _state(seen),
        "reason": seen.observation.reason if seen else None,
        "exit_code": seen.observation.exit_code if seen else None,
        "restarts": seen.observation.restarts if seen else 0,
        "left": folder.lease.left,
        **{name: getattr(folder, name) for name in ("run_id", "step", "partition", "attempt")},
        "submitted": folder.ledger.submitted,
        "collected": folder.collected,
        "run_directory": folder.path,
    }


def _timeline(folder: RunDirectory, starts: list[StatusRecord]) -> list[tuple[float | None, str]]:
    events: list[tuple[float | None, str]] = [(folder.ledger.submitted, "submitted")]
    for start in starts:
        where = start.get("nodes") or start.host or "?"
        events.append((start.started, f"start {start.restart + 1} on {where}"))
        events += [(start.launched, "payload began")] if start.launched else []
        events += [(None, f"signal {name}") for name in start.signals]
        events += [(start.ended, f"ended with exit code {start.exit_code}")] if start.ended else []
    return events
