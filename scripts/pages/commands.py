"""The page of every command, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from pages.text import GENERATED, prose, table


def cli_page() -> str:
    """Return the page of every command."""
    # Imported here: it loads all commands.
    from dagster_slurm_components.cli.main import main  # noqa: PLC0415

    parts = [GENERATED, "# `dg-slurm`: every command"]
    parts += _command(main, click.Context(main, info_name="dg-slurm"))
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    if context.parent is not None:
        yield f"## `{context.command_path}`"
    yield f"```text\n{context.command_path} {pieces}\n```"
    if command.help:
        yield prose(re.sub(r"\x08\n?", "", inspect.cleandoc(command.help)))
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None and "--help" not in record[0]:
            rows.append((f"`{record[0]}`", record[1]))
    if rows:
        yield table(("option", "what"), rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _command(child, click.Context(child, info_name=name, parent=context))
