"""``dg-slurm``: the group of all commands, each imported when it is asked for."""

import importlib
from importlib import metadata

import click

from dagster_slurm_components.cli.terminal import ErrorsTold

COMMANDS = {
    **{name: name for name in ("attach", "check", "clean", "cluster", "doctor", "env", "init", "jobs")},
    **{name: name for name in ("lib", "new", "render", "schema", "sites")},
    **dict.fromkeys(("agent", "login", "status"), "agent"),
    "import": "import_sbatch",
}
"""The module of each command, which has its name there. A commit hook must not wait for other commands' imports."""


class LazyGroup(ErrorsTold):
    """A group that imports a command when it is run or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"dagster_slurm_components.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, "import_" if cmd_name == "import" else cmd_name)
        return command


def _version() -> str:
    try:
        return metadata.version("dagster-slurm-components")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "unknown (not installed)"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="dg-slurm")
def main() -> None:
    """Short YAML files become Dagster assets that run on a laptop and on Slurm without a changed line."""


if __name__ == "__main__":
    main()
