"""``dg-slurm``: the group of all commands, each imported when it is asked for."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path

import click
from dotenv import dotenv_values

from dagster_slurm_components.cli.terminal import ErrorsTold
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.profiles import project_folder
from dagster_slurm_components.spec.trust import check_owner

COMMANDS = {
    **{
        name: name for name in ("advise", "check", "clean", "cluster", "data", "doctor", "env", "get", "init")
    },
    **{name: name for name in ("jobs", "launch", "lib", "new", "put", "render", "schema", "sites", "top")},
    **dict.fromkeys(("agent", "login", "status"), "agent"),
    "import": "import_sbatch",
    **dict.fromkeys(("debug", "forward", "shell", "stacks"), "into"),
    **dict.fromkeys(("attach", "logs"), "jobs"),
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
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Act as if started in this folder.",
)
@click.pass_context
def main(context: click.Context, project: Path | None) -> None:
    """Short YAML files become Dagster assets that run on a laptop and on Slurm without a changed line.

    As `dg`, all commands read the project's .env, which wins over variables that are set already.
    """
    if project is not None:
        context.call_on_close(partial(os.chdir, Path.cwd()))
        os.chdir(project)
    context.with_resource(_variables_of_the_project())


@contextmanager
def _variables_of_the_project() -> Iterator[None]:
    """Set the variables of ``.env`` as `dg` does: those in the project's folder, and they win (dagster 1.13)."""
    file, before = project_folder(Path.cwd()) / ".env", dict(os.environ)
    try:
        if file.exists():
            check_owner(file, file.parent)
        found = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        raise DagsterSlurmError(f"can't read it: {error}", where=str(file)) from error
    os.environ.update({name: value for name, value in found.items() if value is not None})
    try:
        yield
    finally:
        for name in found:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in found if name in before})


if __name__ == "__main__":
    main()
