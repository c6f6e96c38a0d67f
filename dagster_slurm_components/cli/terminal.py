"""What commands print: tables and colour on a terminal, plain text when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from dagster_slurm_components.errors import DagsterSlurmError


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn our errors into a message and exit status 1."""
    try:
        yield
    except DagsterSlurmError as error:
        raise click.ClickException(str(error)) from error


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
