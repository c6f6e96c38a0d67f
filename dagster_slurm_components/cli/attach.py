"""``dg-slurm attach``: a run whose process died goes on, and takes up its jobs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from dagster_slurm_components.cli.terminal import errors_told
from dagster_slurm_components.cli.webserver import reexecute
from dagster_slurm_components.errors import DagsterSlurmError

if TYPE_CHECKING:
    import dagster as dg


@click.command()
@click.argument("run")
@click.option(
    "--url", metavar="URL", help="Have Dagster's webserver there launch the retry, and don't wait for it."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on stdout.")
def attach(run: str, url: str | None, as_json: bool) -> None:
    """Go on with RUN where it stopped: its jobs that still run or have ended meanwhile are taken up.

    RUN is a run's id or the first characters of it, at least 4. The retry runs in this terminal, needs nothing but
    DAGSTER_HOME, and ends with status 0 if it succeeds. A run that somebody still follows is left alone.

    With --url a webserver launches the retry. That works for runs that Dagster's UI, daemon or API launched, not for
    those of `dg launch`.
    """
    from dagster_slurm_components.pipes.reexecute import (  # noqa: PLC0415 -- a second
        find_run,
        opened_instance,
        reexecute_here,
        run_to_take_up,
    )
    from dagster_slurm_components.pipes.runs import call_off_retry  # noqa: PLC0415

    with errors_told(), opened_instance() as instance:
        parent = run_to_take_up(instance, find_run(instance, run))
        if url is not None:
            _refuse_without_origin(parent)
            retry, success = reexecute(parent.run_id, url), None
            call_off_retry(instance, parent)
            text = f"run {retry} goes on for run {parent.run_id}"
        else:
            made = reexecute_here(instance, parent, tell=lambda said: click.echo(said, err=True))
            retry, success = made.run_id, made.is_success
            text = f"run {retry} went on for run {parent.run_id} and is {made.status.value}"
    click.echo(
        json.dumps({"run_id": retry, "retry_of": parent.run_id, "success": success}) if as_json else text
    )
    sys.exit(1 if success is False else 0)


def _refuse_without_origin(run: dg.DagsterRun) -> None:
    """Refuse what the webserver answers with HTTP 500 and "CheckError: Expected non-None value: None" (1.13).

    Raises:
        DagsterSlurmError: The run was made in a terminal.
    """
    if run.remote_job_origin is None:
        raise DagsterSlurmError(
            f"Dagster's webserver can't re-execute run {run.run_id}: it was made in a terminal, by `dg launch` or "
            "`dg-slurm attach`, and so is of none of its code locations",
            hint=f"Without a webserver, in this terminal: dg-slurm attach {run.run_id}",
        )
