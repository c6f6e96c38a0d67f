"""What commands share: options, errors, tables, progress and JSON; colour on a terminal, plain text when piped."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dagster_slurm_components.cli.columns import lined
from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError, ParkedTooLongError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.parked import ParkedHost, Parking
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.units import format_size

PATIENCE = 600.0
"""Seconds for which a transfer waits for a host that was lost."""
Row = Mapping[str, Any]
Columns = Mapping[str, str | Callable[[Row], object]]
"""The columns of a table of rows: by its title each one's cells, as a row's key or as a function of the row."""

profile_option = click.option(
    "--profile", "profile_name", help="Name of the profile.  [default: DAGSTER_SLURM_PROFILE, else local]"
)
"""Adds the option that names the profile."""


def profile_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Add both ways to name the profile, for a command without another argument: ``doctor leo``, ``--profile leo``."""

    @click.argument("named", metavar="[PROFILE]", required=False)
    @profile_option
    @wraps(command)
    def either(*args: Any, named: str | None, profile_name: str | None, **options: Any) -> None:
        if None not in (named, profile_name) and named != profile_name:
            raise click.UsageError(f"Two profiles are named: {named} and {profile_name}.")
        command(*args, profile_name=profile_name or named, **options)

    return either


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
"""Adds the option for output that programs read."""


def profile_and_json(command: Callable[..., None]) -> Callable[..., None]:
    """Add what each command of a group on a profile's host has: the profile, and output that programs read."""
    return profile_argument(json_option(command))


class Group(click.Group):
    """A group whose help tells of each command a whole sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(limit=500)) for name, each in found if each])


class ErrorsTold(Group):
    """A group that turns errors of its commands into a message and exit status 1."""

    errors: type[Exception] = DagsterSlurmError

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except self.errors as error:
            raise click.ClickException(str(error)) from error


def seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read an option's duration as in YAML (``45s``, ``30m``, ``12h``, ``14d``, ``2w``); an option's ``callback``."""
    try:
        return None if value is None else float(duration_seconds(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no duration such as 45s, 30m, 12h, 14d or 2w") from None


def print_json(data: Any) -> None:
    """Print data for programs."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def near(file: str | Path) -> str:
    """Return a file's name as seen from here, if it lies below, else whole."""
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative


def moment(epoch: float | None) -> str:
    """Return seconds since 1970 as local date and time; an unknown moment is empty."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch)) if epoch else ""


def iso(epoch: float | None) -> str | None:
    """Return seconds since 1970 as programs read a moment: ISO 8601, UTC."""
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="seconds") if epoch else None


def print_rows(rows: Sequence[Row], columns: Columns, *, as_json: bool, empty: str = "") -> None:
    """Print rows: as JSON all that they hold, else some of it as a table, or on a terminal that it is ``empty``."""
    if as_json:
        print_json(list(rows))
    elif empty and not rows and sys.stdout.isatty():
        click.echo(empty)
    else:
        table(columns, cells(rows, columns))


def cells(rows: Iterable[Row], columns: Columns) -> list[list[object]]:
    """Return the cells of a table of rows."""
    return [[row[cell] if isinstance(cell, str) else cell(row) for cell in columns.values()] for row in rows]


def table(columns: Iterable[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table: columns on a terminal, tab-separated when piped. What is not known is an empty cell."""
    titles = list(columns)
    texts = [["" if cell is None else " ".join(str(cell).split()) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        click.echo("\n".join("\t".join(row) for row in [titles, *texts]))
        return
    if title:
        click.secho(title, bold=True)
    for line in lined(titles, texts, shutil.get_terminal_size().columns):
        click.echo(line)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield what shows a line of progress: a spinner on a terminal, lines on stderr when piped."""
    if quiet:
        yield lambda line: None
    elif not sys.stderr.isatty():
        yield lambda line: click.echo(line, err=True)
    else:
        from rich.console import Console  # noqa: PLC0415 -- 0.1 s, and for terminals only
        from rich.markup import escape  # noqa: PLC0415

        with Console(stderr=True).status("looking") as spinner:
            yield lambda line: spinner.update(escape(line))


@contextmanager
def bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows progress: a bar on a terminal, nothing otherwise."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console  # noqa: PLC0415 -- 0.1 s, and for terminals only
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description:>8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total or None)
            shown.update(tasks[stage], completed=done, total=total or None)

        yield show


@contextmanager
def patient(satellite: Satellite) -> Iterator[Satellite]:
    """Yield the same host, whose calls wait while it can't be reached, for ``PATIENCE`` at most.

    Raises:
        HostUnreachableError: It was not there for so long.
    """
    over = threading.Event()

    def sleep(seconds: float) -> None:
        if over.wait(seconds):
            raise HostUnreachableError("nobody waits any more")

    def tell(text: str) -> None:
        click.echo(f"{text} (for {PATIENCE / 60:g} min at most)" if "\n" in text else text, err=True)

    parking = Parking(PATIENCE, tell, sleep, who="This transfer")
    try:
        yield Satellite(ParkedHost(satellite.host, parking))
    except ParkedTooLongError as error:
        raise HostUnreachableError(str(error.__cause__), where=error.where) from error
    finally:
        over.set()


@contextmanager
def transfer(
    satellite: Satellite, verb: str, total: int, place: str, *, quiet: bool
) -> Iterator[tuple[Satellite, Callable[[int], None]]]:
    """Yield a host as ``patient`` does, and what hears of bytes that have come to their ``place`` and shows them.

    Raises:
        DagsterSlurmError: The host was lost for too long; it says how much has come.
    """
    brought = 0
    with bar(quiet=quiet) as show:

        def got(size: int) -> None:
            nonlocal brought
            brought += size
            show(verb, brought, total)

        try:
            with patient(satellite) as there:
                yield there, got
        except HostUnreachableError as error:
            hint = f"{format_size(brought)} of {format_size(total)} are {place}; the same command goes on."
            raise DagsterSlurmError(error.message, where=error.where, hint=hint) from error
