"""``dg-slurm launch``: what ``dg launch`` does, with its progress instead of its log."""

import os
import sys
import tempfile
from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[DG_OPTIONS]...")
def launch(options: tuple[str, ...]) -> None:
    """Launch a run and show its progress: a line for each asset, what runs now, what failed and why.

    All options are those of `dg launch`: --assets, --job, --partition, --partition-range, --config, --config-json. The
    exit status is that of `dg launch`, too, whose whole log is kept if it is not 0.
    """
    from rich.console import Console  # noqa: PLC0415 -- for this command only

    from dagster_slurm_components.cli import launching  # noqa: PLC0415 -- a second
    from dagster_slurm_components.pipes.reexecute import opened_instance  # noqa: PLC0415

    descriptor, name = tempfile.mkstemp(prefix="dg-launch-", suffix=".log")
    os.close(descriptor)
    with tempfile.TemporaryDirectory(prefix="dg-slurm-launch-") as folder:
        # As for `dg launch`: without DAGSTER_HOME a temporary one, with the settings of this folder.
        settings = Path("dagster.yaml")
        (Path(folder) / settings).write_bytes(settings.read_bytes() if settings.is_file() else b"")
        os.environ.setdefault("DAGSTER_HOME", folder)
        with opened_instance() as instance:
            console = Console(highlight=False)
            run_id, status = launching.launch(instance, options, console, log=Path(name), folder=Path.cwd())
    click.echo(f"run {run_id} " + (f"failed; the whole log is in {name}" if status else "succeeded"))
    if not status:
        Path(name).unlink()
    sys.exit(status)
