"""``dg-slurm get``: the outputs of a job, on this machine."""

from pathlib import Path

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.finding import find_job
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.download import Wanted, download, plan, read_outputs
from dagster_slurm_components.jobs.outputs import Made, shown
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.units import format_size


@click.command()
@click.argument("job")
@click.argument("name", required=False)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Where each output gets a folder of its name.  [default: here]",
)
@click.option("--force", is_flag=True, help="Replace files with other content.")
@terminal.profile_option
@terminal.json_option
def get(
    job: str, name: str | None, *, folder: Path, force: bool, profile_name: str | None, as_json: bool
) -> None:
    """Bring the outputs of JOB to this machine: all of them, or the one of that NAME.

    JOB is a job's id, a run's id, an asset's key or a run directory, as for `dg-slurm jobs`. What is here already is
    not sent again, a file that was cut off goes on where it stopped, and each has the hash that it had when the job
    ended. A lost connection is waited for, up to ten minutes. No further login is made.
    """
    place = target(load_profile(profile_name, start=Path.cwd()))
    outputs = read_outputs(place.satellite, (found := find_job(place, job, whole=False)[0]).path)
    chosen = [each for each in outputs if name in (None, each.name)]
    if not chosen:
        names = [each.name for each in outputs]
        text = f"job {job} has no output `{name}`" if names else f"job {job} has told of no outputs"
        hint = did_you_mean(name, names) if names else "It has none, is not over, or its payload failed."
        raise DagsterSlurmError(text, where=found.path, hint=hint)
    plans = [(each, *plan(each, folder / each.name, force=force)) for each in chosen]
    waiting = [wanted for _, missing, _ in plans for wanted in missing]
    total = sum(wanted.file.size for wanted in waiting)

    def done(wanted: Wanted) -> None:
        if not as_json:
            click.echo(f"{shown(str(wanted.target))}\t{format_size(wanted.file.size)}")

    with terminal.transfer(place.satellite, "get", total, "here", quiet=as_json) as (satellite, got):
        download(satellite, waiting, folder, got=got, done=done)
    rows = [row for each, missing, there in plans for row in _rows(each, missing, there)]
    if as_json:
        terminal.print_json(rows)
    elif there := len(rows) - len(waiting):
        click.echo(f"{there} of {len(rows)} files were here already")


def _rows(made: Made, missing: list[Wanted], there: list[Wanted]) -> list[dict[str, object]]:
    return [
        {
            "output": made.name,
            "file": shown(wanted.file.name),
            "path": shown(str(wanted.target)),
            "bytes": wanted.file.size,
            "sha256": wanted.file.sha256,
            "state": state,
        }
        for state, several in (("fetched", missing), ("here", there))
        for wanted in several
    ]
