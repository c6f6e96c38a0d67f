"""``dg-slurm status`` and ``dg-slurm agent``: the process that owns this machine's connections."""

from __future__ import annotations

import click

from dagster_slurm_components.cli.terminal import Columns, cells, json_option, moment, print_json, table
from dagster_slurm_components.hosts.agent import client, place
from dagster_slurm_components.hosts.attempts import failing

_COLUMNS: Columns = {
    "host": "host",
    "state": lambda row: "connected" if row["connected"] else row["failure"] or "not connected",
    "jobs": "jobs",
    "last contact": lambda row: moment(row["last_contact"]) or "never",
    **{"calls": "calls", "Slurm queries": "queries"},
}


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the connections of this machine, the jobs watched through them, and the Slurm queries made."""
    # The hosts that processes wait for, with or without an agent.
    answer, waiting = client.status(), failing(place.folder())
    if as_json:
        parked = [{"host": one.host, "since": one.since, "why": str(one.error)} for one in waiting]
        facts = {name: fact for name, fact in (answer or {}).items() if name != "ok"}
        print_json({"running": answer is not None, **facts, "parked": parked})
        return
    if answer is None:
        click.echo("No agent runs: no process on this machine has used a host for a while.")
    else:
        click.echo(
            f"agent: pid {answer['pid']}, since {moment(answer['since'])}, {answer['clients']} clients"
        )
        if answer["hosts"]:
            table(_COLUMNS, cells(answer["hosts"], _COLUMNS))
    for one in waiting:
        click.echo(f"waited for: {one.host} since {moment(one.since)}: {one.error.message}")


@click.group()
def agent() -> None:
    """Look after the process that owns this machine's connections.

    It starts by itself when a step needs a host, and ends when nobody has used it for 15 minutes.
    """


agent.add_command(status)


@agent.command()
def start() -> None:
    """Start the agent if it does not run."""
    pipe = client.connected()
    answer = client.ask(pipe, "status")
    pipe.close()
    click.echo(f"The agent runs: pid {answer['pid']}, socket {place.address()}")


@agent.command()
def stop() -> None:
    """End the agent and its connections. Jobs and waiting steps are not harmed; a login has to be made again."""
    answer = client.stop()
    click.echo("No agent runs." if answer is None else f"The agent (pid {answer['pid']}) has ended.")
