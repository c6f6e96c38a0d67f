"""``dg-slurm attach``: a run whose process died goes on, and takes up its jobs."""

import sys

import click

from dagster_slurm_components.cli.terminal import json_option, print_json


@click.command()
@click.argument("run")
@json_option
def attach(run: str, as_json: bool) -> None:
    """Go on with RUN where it stopped: its jobs that still run or have ended meanwhile are taken up.

    RUN is a run's id or the first characters of it, at least 4. The retry runs in this terminal, needs nothing but
    DAGSTER_HOME, and ends with status 0 if it succeeds. A run that somebody still follows is left alone. What Dagster's
    UI, daemon or API launched, "Re-execute" in the UI takes up as well.
    """
    from dagster_slurm_components.pipes import reexecute as here  # noqa: PLC0415 -- a second

    with here.opened_instance() as instance:
        parent = here.run_to_take_up(instance, here.find_run(instance, run))
        made = here.reexecute_here(instance, parent, tell=lambda text: click.echo(text, err=True))
    if as_json:
        print_json({"run_id": made.run_id, "retry_of": parent.run_id, "success": made.is_success})
    else:
        click.echo(f"run {made.run_id} went on for run {parent.run_id} and is {made.status.value}")
    sys.exit(0 if made.is_success else 1)
