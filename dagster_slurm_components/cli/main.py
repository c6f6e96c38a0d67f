"""``dg-slurm``: the group of all commands, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import click

COMMANDS: Mapping[str, str] = {
    "agent": "dagster_slurm_components.cli.agent:agent",
    "attach": "dagster_slurm_components.cli.attach:attach",
    "check": "dagster_slurm_components.cli.check:check",
    "clean": "dagster_slurm_components.cli.clean:clean",
    "cluster": "dagster_slurm_components.cli.cluster:cluster",
    "doctor": "dagster_slurm_components.cli.doctor:doctor",
    "env": "dagster_slurm_components.cli.env:env",
    "init": "dagster_slurm_components.cli.init:init",
    "jobs": "dagster_slurm_components.cli.jobs:jobs",
    "login": "dagster_slurm_components.cli.login:login",
    "new": "dagster_slurm_components.cli.new:new",
    "render": "dagster_slurm_components.cli.render:render",
    "schema": "dagster_slurm_components.cli.schema:schema",
    "sites": "dagster_slurm_components.cli.sites:sites",
    "status": "dagster_slurm_components.cli.status:status",
}
"""Command by name, as ``module:attribute``. A commit hook must not wait for the imports of other commands."""


class LazyGroup(click.Group):
    """A group that imports a command when it is run or its help is shown."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted({*super().list_commands(ctx), *self.commands_at})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.commands_at:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.commands_at[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.commands_at[cmd_name]} is not a click command")
        return command


def _version() -> str:
    try:
        return metadata.version("dagster-slurm-components")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "unknown (not installed)"


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="dg-slurm")
def main() -> None:
    """Short YAML files become Dagster assets that run on a laptop and on Slurm without a changed line."""


if __name__ == "__main__":
    main()
