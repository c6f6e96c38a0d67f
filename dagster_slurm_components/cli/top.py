"""``dg-slurm top``: the jobs that wait and run, and what they use, as a table that goes on."""

import contextlib
import select
import shutil
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.columns import lined
from dagster_slurm_components.cli.job_rows import job_row, read_asked
from dagster_slurm_components.cli.terminal import Row
from dagster_slurm_components.cli.top_rows import COLUMNS, POINTS, load
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.look import JobInfo
from dagster_slurm_components.jobs.meter import UsageTail
from dagster_slurm_components.jobs.records import RunDirectory, observed, run_directories
from dagster_slurm_components.jobs.status import STATUS, parse_status
from dagster_slurm_components.jobs.target import Target, target
from dagster_slurm_components.spec.profiles import load_profile, profile_names
from dagster_slurm_components.units import parse_time_limit

_PAUSE = 5.0
_ANEW = 30.0
"""Seconds after which it is looked for new jobs, and at what Slurm's queue has told others, or us, lately."""
_MOST_NODES = 16
_ROUNDS = 3
"""Reads that it takes at most to get from a file's beginning to its end."""


@dataclass
class _Job:
    folder: RunDirectory
    seen: JobInfo
    asked: dict[str, str]
    tails: list[UsageTail] = field(default_factory=list)


class Board:
    """The jobs of one profile that are alive, all or those of one run."""

    def __init__(self, name: str, place: Target, run: str | None = None) -> None:
        self.name, self._place, self._run = name, place, run
        self._jobs: dict[str, _Job] = {}
        self._over: set[str] = set()
        self._anew_at: float | None = None

    def look(self, now: float) -> None:
        """Look at the jobs: most times by one call, for all their files.

        Raises:
            HostError: The host gives no answer.
        """
        first = self._anew_at is None
        if self._anew_at is None or now >= self._anew_at:
            self._look_anew(None if first else self._place.scheduler.max_age)
            self._anew_at = now + _ANEW
        for _ in range(_ROUNDS if first else 1):
            if not self._read(now):
                return

    def _look_anew(self, max_age: float | None) -> None:
        folders = [each for each in run_directories(self._place) if each.path not in self._over]
        if self._run is not None:
            folders = [each for each in folders if each.is_job(self._run) or each.runs_named(self._run)]
        known = observed(self._place, folders, max_age)
        self._over |= {each.path for each, seen in known if seen and not seen.alive}
        alive = [(each, seen) for each, seen in known if seen and seen.alive]
        new = [each.path for each, _ in alive if each.path not in self._jobs]
        asked = dict(zip(new, read_asked(self._place.satellite, new), strict=True))
        before, self._jobs = self._jobs, {}
        for folder, seen in alive:
            job = before.get(folder.path) or _Job(folder, seen, asked[folder.path])
            self._jobs[folder.path] = replace(job, folder=folder, seen=seen)

    def _read(self, now: float) -> bool:
        """Read status and usage of all jobs in one call; return whether there is more that is newer."""
        jobs, wanted = list(self._jobs.values()), []
        for job in jobs:
            nodes = min(job.folder.status.nodes if job.folder.status else 0, _MOST_NODES)
            job.tails += [UsageTail(recent=deque(maxlen=POINTS)) for _ in range(nodes - len(job.tails))]
            wanted += [FileRead(f"{job.folder.path}/{STATUS}")]
            wanted += [tail.read(job.seen.handle, node) for node, tail in enumerate(job.tails)]
        files = iter(self._place.satellite.read(wanted) if wanted else ())
        behind = False
        for job in jobs:
            job.folder = replace(job.folder, status=parse_status(next(files).data))
            for tail in job.tails:
                behind |= tail.take(next(files), now)
        return behind

    @property
    def rows(self) -> list[Row]:
        """What is known of them, by names for programs."""
        return [
            {
                "profile": self.name,
                **job_row(job.folder, job.seen, job.asked),
                "time_limit_s": parse_time_limit(job.asked.get("time", "")),
                **load(job.tails),
            }
            for job in self._jobs.values()
        ]


@click.command()
@click.argument("run", required=False)
@terminal.profile_option
@click.option("--all", "all_profiles", is_flag=True, help="The jobs of all profiles of the project.")
@click.option("--once", is_flag=True, help="Print the table once, as where the output is no terminal.")
@terminal.json_option
def top(run: str | None, profile_name: str | None, all_profiles: bool, once: bool, as_json: bool) -> None:
    """Show the jobs that wait and run, as they go: what they use of what they have, or why they wait.

    RUN is a run's id or its beginning, or a job's id. Bars are the last samples, the newest at the right, and a full
    one is all that the job has. `q` or Ctrl-C ends the table, and no job.
    """
    if all_profiles and profile_name:
        raise click.UsageError("--all and --profile exclude each other.")
    names = profile_names(Path.cwd()) if all_profiles else (profile_name,)
    boards: dict[str | None, Board] = {}
    columns = {"profile": "profile", **COLUMNS} if all_profiles else COLUMNS

    def look() -> tuple[list[Row], list[str]]:
        notes = []
        for name in names:
            try:
                if name not in boards:
                    loaded = load_profile(name, start=Path.cwd())
                    boards[name] = Board(loaded.name, target(loaded), run)
                boards[name].look(time.monotonic())
            except DagsterSlurmError as error:
                if name not in boards and not all_profiles:
                    raise
                notes.append(f"{name or boards[name].name}: {' '.join(str(error).split())}")
        return [row for board in boards.values() for row in board.rows], notes

    if once or as_json or not sys.stdout.isatty():
        rows, notes = look()
        for note in notes:
            click.echo(note, err=True)
        terminal.print_rows(rows, columns, as_json=as_json, empty="no jobs")
        return
    with contextlib.suppress(KeyboardInterrupt), _screen() as draw:
        key = ""
        while key != "q":
            rows, notes = look()
            texts = [
                ["" if cell is None else str(cell) for cell in row] for row in terminal.cells(rows, columns)
            ]
            table = lined(list(columns), texts, shutil.get_terminal_size().columns) if rows else ["no jobs"]
            key = draw([f"{time.strftime('%H:%M:%S')}  {len(rows)} jobs  (q ends this)", *notes, "", *table])


@contextlib.contextmanager
def _screen() -> Iterator[Callable[[Sequence[str]], str]]:
    """Take the terminal's other screen; yield what draws there and returns the key that is pressed within a while."""
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(keys) if keys is not None else None

    def draw(lines: Sequence[str]) -> str:
        size = shutil.get_terminal_size()
        shown = "".join(f"{line[: size.columns]}\x1b[K\n" for line in lines[: size.lines - 1])
        click.echo(f"\x1b[H{shown}\x1b[J", nl=False)
        ready, _, _ = select.select([] if keys is None else [keys], [], [], _PAUSE)
        return sys.stdin.read(1) if ready else ""

    click.echo("\x1b[?1049h\x1b[?25l", nl=False)
    try:
        if keys is not None:
            tty.setcbreak(keys)
        yield draw
    finally:
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
        click.echo("\x1b[?25h\x1b[?1049l", nl=False)
