"""``dg-slurm launch``: what ``dg launch`` does, with its progress instead of its log."""

import sys
import tempfile
from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF DG]...")
def launch(options: tuple[str, ...]) -> None:
    """Launch a run and show its progress: a line for each asset, what runs now, what failed and why.

    All options are those of `dg launch`: --assets, --job, --partition, --partition-range, --config, --config-json. The
    exit status is that of `dg launch`, too, whose whole log is kept if it is not 0.
    """
    from rich.console import Console  # noqa: PLC0415 -- for this command only

    from dagster_slurm_components.cli import launching  # noqa: PLC0415 -- a second
    from dagster_slurm_components.pipes.reexecute import opened_instance  # noqa: PLC0415

    log = Path(tempfile.mkdtemp(prefix="dg-slurm-launch-")) / "dg.log"
    with launching.dagster_home(), opened_instance() as instance:
        console = Console(highlight=False)
        run_id, status = launching.launch(instance, options, console, log=log, folder=Path.cwd())
    if status:
        click.echo(f"run {run_id} failed; the whole log is in {log}")
    else:
        log.unlink()
        log.parent.rmdir()
        click.echo(f"run {run_id} succeeded")
    sys.exit(status)
