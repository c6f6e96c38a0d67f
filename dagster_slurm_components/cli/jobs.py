"""``dg-slurm jobs``: the jobs of a profile, for people who live in a terminal."""

import sys
import time
from pathlib import Path

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.finding import ELEMENT, find_job
from dagster_slurm_components.cli.job_rows import (
    COLUMNS,
    HEAD,
    asked_for,
    explanation,
    job_row,
    read_asked,
    state_of,
    timeline,
)
from dagster_slurm_components.cli.logs import RankLogs, print_from
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.ending import cancel as cancel_job
from dagster_slurm_components.jobs.events import STDERR, STDOUT
from dagster_slurm_components.jobs.lease import CANCEL_WANTED, FOLLOWING
from dagster_slurm_components.jobs.look import with_accounts
from dagster_slurm_components.jobs.records import observed, run_directories
from dagster_slurm_components.jobs.status import STATUS, parse_starts
from dagster_slurm_components.jobs.target import Target, target
from dagster_slurm_components.spec.profiles import load_profile

_FILES = ("job.sh", "ledger", "status", "messages.jsonl", "stdout.log", "stderr.log", "lease")
_PAUSE = 1.0
_LENGTHS = {STATUS: 256 * 1024, "job.sh": HEAD}
"""Bytes that are read of a file; the options of sbatch are in the first lines of the job script."""


def _target(profile_name: str | None) -> Target:
    return target(load_profile(profile_name, start=Path.cwd()))


@click.group(cls=terminal.Group)
def jobs() -> None:
    """See and cancel the jobs of a profile.

    JOB is a job's id (of an element of an array: 123_4), a run's id or its beginning, a run directory, or, but for
    `cancel`, an asset's key, whose newest job is meant.
    """


@jobs.command("list")
@terminal.profile_argument
@click.option("--all", "also_ended", is_flag=True, help="Jobs that have ended too.")
@terminal.json_option
def list_jobs(profile_name: str | None, also_ended: bool, as_json: bool) -> None:
    """List jobs, the newest last."""
    place = _target(profile_name)
    known = observed(place, run_directories(place))
    found = [(folder, seen) for folder, seen in known if also_ended or (seen and seen.alive)]
    asked = read_asked(place.satellite, [folder.path for folder, _ in found])
    infos = with_accounts(place, [seen for _, seen in found])
    rows = [
        job_row(folder, info, options) for (folder, _), info, options in zip(found, infos, asked, strict=True)
    ]
    others = f"; --all shows {len(known)} ended ones" if known and not also_ended else ""
    terminal.print_rows(rows, COLUMNS, as_json=as_json, empty=f"no jobs{others}")


@jobs.command()
@click.argument("job")
@terminal.profile_option
@terminal.json_option
def show(job: str, profile_name: str | None, as_json: bool) -> None:
    """Show one job: its timeline, why it waits, what it asked for and used, and its files."""
    place = _target(profile_name)
    folder, found = find_job(place, job)
    (seen,) = with_accounts(place, [found])
    # Of the status file what it says, of the job script its head, of the others only how long they are.
    wanted = [FileRead(f"{folder.path}/{name}", 0, _LENGTHS.get(name, 0)) for name in _FILES]
    by_name = dict(zip(_FILES, place.satellite.read(wanted), strict=True))
    sizes = {name: file.size for name, file in by_name.items() if file.exists}
    happened = timeline(folder, parse_starts(by_name[STATUS].data))
    asked = asked_for(by_name["job.sh"].data)
    row = job_row(folder, seen, asked)
    if as_json:
        events = [{"time": terminal.iso(when), "event": what} for when, what in happened]
        terminal.print_json({**row, "asked": asked, "timeline": events, "files": sizes})
        return
    click.echo(f"job {folder.ledger.job_id or '-'}: {state_of(seen)}\n{explanation(seen)}".rstrip())
    click.echo(f"run {folder.run_id}, step {folder.step}, attempt {folder.attempt}\n{folder.path}")
    told = zip(COLUMNS, terminal.cells([row], COLUMNS)[0], strict=True)
    facts = {name: fact for name, fact in told if name not in ("job", "state", "step", "run")}
    facts["asked"] = ", ".join(f"{name}={value}" for name, value in asked.items())
    if elements := folder.lease.note.elements:
        facts["elements"] = f"{folder.ledger.job_id}_[{elements}]"
    for name, fact in {**facts, "expected start": row["expected_start"]}.items():
        click.echo(f"{name}: {fact}\n" if fact not in (None, "") else "", nl=False)
    click.echo()
    terminal.table(["time", "event"], [[terminal.moment(when), what] for when, what in happened])
    click.echo()
    terminal.table(["file", "bytes"], sizes.items())


@jobs.command()
@click.argument("job")
@terminal.profile_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--stderr", "from_stderr", is_flag=True, help="Print stderr instead of stdout.")
@click.option("--ranks", is_flag=True, help="Those of all ranks too, each line after its rank's number.")
def logs(job: str, profile_name: str | None, follow: bool, from_stderr: bool, ranks: bool) -> None:
    """Print what a job wrote."""
    place = _target(profile_name)
    folder, seen = find_job(place, job, whole=False)
    path = f"{folder.path}/{STDERR if from_stderr else STDOUT}"
    offset, others = 0, RankLogs(place, folder.path, "err" if from_stderr else "out")
    while True:
        # Looked at before reading: what it wrote last must not be missed.
        over = not follow or seen is None or not seen.alive
        offset = print_from(place, path, offset)
        if ranks:
            others.print(last=over)
        if over:
            return
        time.sleep(_PAUSE)
        seen = find_job(place, folder.path)[1]


@jobs.command()
@click.argument("job")
@terminal.profile_option
def cancel(job: str, profile_name: str | None) -> None:
    """Cancel one job. The step that follows it fails and says so; of a job that was left the sensor does."""
    loaded = load_profile(profile_name, start=Path.cwd())
    place = target(loaded)
    folder, seen = find_job(place, job, by_asset=False)
    if seen is None or not seen.alive:
        raise DagsterSlurmError(f"job {folder.ledger.job_id or job} has ended already: {state_of(seen)}")
    if ELEMENT.fullmatch(job) and not ELEMENT.fullmatch(seen.handle.job_id):
        raise DagsterSlurmError(
            f"one process, {seen.handle.job_id}, runs all elements of this array",
            hint=f"`dg-slurm jobs cancel {seen.handle.job_id} --profile {loaded.name}` ends them all.",
        )
    if folder.lease.state == FOLLOWING and folder.lease.epoch:
        # Written first: should this end before it is done, whoever follows the job, or the sensor, does it.
        place.leases.change(folder.path, folder.lease.epoch, CANCEL_WANTED)
    cancel_job(place, seen.handle, patience=60.0)
    then = "; the sensor `slurm_jobs` reports its end" if folder.lease.left else ""
    click.echo(f"job {seen.handle.job_id} of profile {loaded.name} is being cancelled{then}")


@jobs.command()
@click.argument("run")
@terminal.json_option
def attach(run: str, as_json: bool) -> None:
    """Go on with RUN where it stopped: its jobs that still run or have ended meanwhile are taken up.

    RUN is a run's id or the first characters of it, at least 4. The retry runs in this terminal, needs nothing but
    DAGSTER_HOME, and ends with status 0 if it succeeds. A run that somebody still follows is left alone. What Dagster's
    UI, daemon or API launched, "Re-execute" in the UI takes up as well.
    """
    from dagster_slurm_components.pipes import reexecute as here  # noqa: PLC0415 -- a second

    with here.opened_instance() as instance:
        parent = here.run_to_take_up(instance, here.find_run(instance, run))
        made = here.reexecute_here(instance, parent, tell=lambda text: click.echo(text, err=True))
    if as_json:
        terminal.print_json({"run_id": made.run_id, "retry_of": parent.run_id, "success": made.is_success})
    else:
        click.echo(f"run {made.run_id} went on for run {parent.run_id} and is {made.status.value}")
    sys.exit(0 if made.is_success else 1)
