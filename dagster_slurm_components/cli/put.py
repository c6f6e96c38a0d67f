"""``dg-slurm put``: files of this machine, on a profile's host."""

import re
from pathlib import Path

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.outputs import shown
from dagster_slurm_components.jobs.target import absolute_workdir, satellite_of
from dagster_slurm_components.jobs.upload import Source, lacking, sources, upload
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.units import format_size

_TO = re.compile(r"(?:(?P<profile>[\w.-]+):)?(?P<path>[/~$].*)", re.DOTALL)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.argument("to", metavar="[PROFILE:]PATH")
@click.option("--force", is_flag=True, help="Replace files with other content.")
@terminal.profile_option
@terminal.json_option
def put(files: tuple[Path, ...], to: str, *, force: bool, profile_name: str | None, as_json: bool) -> None:
    """Bring each FILE, or folder with all that is in it, into the folder PATH on a profile's host.

    PATH is absolute, or begins with `~/` or, in quotes, with a variable that is set there, such as `$SCRATCH`; folders
    that are missing are made, closed to others. What is there already is not sent again, and what was cut off goes on
    where it stopped. Each file is whole, and its hash right, before it gets its name. A lost connection is waited for,
    up to ten minutes. No further login is made.
    """
    match = _TO.fullmatch(to)
    if match is None:
        hint = "Write an absolute one: `staging:/scratch/data`, `staging:~/data`, 'staging:$SCRATCH/data'."
        raise DagsterSlurmError(f"{to!r} is no folder on a host", hint=hint)
    if None not in (match["profile"], profile_name) and match["profile"] != profile_name:
        raise click.UsageError(f"Two profiles are named: {match['profile']} and {profile_name}.")
    satellite = satellite_of(load_profile(match["profile"] or profile_name, start=Path.cwd()))
    folder = absolute_workdir(match["path"], satellite, "the target")
    folders, every = sources(files, folder or "/")
    waiting = lacking(satellite, every, force=force)
    total = sum(each.size for each in waiting)

    def done(source: Source) -> None:
        if not as_json:
            click.echo(f"{shown(source.target)}\t{format_size(source.size)}")

    with terminal.transfer(satellite, "put", total, "there", quiet=as_json) as (there, got):
        upload(there, folders, waiting, got=got, done=done)
    sent = set(waiting)
    if as_json:
        terminal.print_json([_row(each, "sent" if each in sent else "there") for each in every])
    elif there_already := len(every) - len(waiting):
        click.echo(f"{there_already} of {len(every)} files were there already")


def _row(source: Source, state: str) -> dict[str, object]:
    return {
        "file": shown(str(source.path)),
        "path": shown(source.target),
        "bytes": source.size,
        "state": state,
    }
