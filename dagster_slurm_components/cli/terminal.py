"""What commands print: tables and colour on a terminal, plain text when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.base import duration_seconds


@contextmanager
def errors_told(other: type[Exception] = DagsterSlurmError) -> Iterator[None]:
    """Turn this package's errors, and those of another kind, into a message and exit status 1."""
    try:
        yield
    except (DagsterSlurmError, other) as error:
        raise click.ClickException(str(error)) from error


def seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read an option's duration as in YAML (``45s``, ``30m``, ``12h``, ``14d``, ``2w``); an option's ``callback``."""
    try:
        return None if value is None else float(duration_seconds(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no duration such as 45s, 30m, 12h, 14d or 2w") from None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table: with lines on a terminal, tab-separated when piped."""
    if not sys.stdout.isatty():
        click.echo("\n".join("\t".join(row) for row in [columns, *rows]))
        return
    from rich.console import Console  # noqa: PLC0415 -- 0.1 s, and for terminals only
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    shown = Table(title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    Console().print(shown)
