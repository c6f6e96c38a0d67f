"""``dg-slurm agent``: the process that owns the connections."""

from __future__ import annotations

import click

from dagster_slurm_components.cli.status import show
from dagster_slurm_components.cli.terminal import errors_told, json_option
from dagster_slurm_components.hosts.agent import client, place


@click.group()
def agent() -> None:
    """Look after the process that owns this machine's connections.

    It starts by itself when a step needs a host, and ends when nobody has used it for 15 minutes.
    """


@agent.command()
@json_option
def status(as_json: bool) -> None:
    """Show the agent, its hosts and what was asked of them."""
    show(as_json)


@agent.command()
def start() -> None:
    """Start the agent if it does not run."""
    with errors_told():
        pipe = client.connected()
        said = client.ask(pipe, "status")
        pipe.close()
    click.echo(f"The agent runs: pid {said['pid']}, socket {place.address()}")


@agent.command()
def stop() -> None:
    """End the agent and its connections. Jobs and waiting steps are not harmed; a login has to be made again."""
    with errors_told():
        said = client.stop()
    click.echo("No agent runs." if said is None else f"The agent (pid {said['pid']}) has ended.")
