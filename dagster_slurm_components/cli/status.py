"""``dg-slurm status`` and ``dg-slurm agent``: the process that owns this machine's connections."""

from __future__ import annotations

from typing import Any

import click

from dagster_slurm_components.cli.terminal import errors_told, json_option, moment, print_json, table
from dagster_slurm_components.hosts.agent import client, place
from dagster_slurm_components.hosts.attempts import failing


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the connections of this machine, the jobs watched through them, and the Slurm queries made."""
    with errors_told():
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
            columns = ["host", "state", "jobs", "last contact", "calls", "Slurm queries"]
            table(columns, [_row(host) for host in answer["hosts"]])
    for one in waiting:
        click.echo(f"waited for: {one.host} since {moment(one.since)}: {one.error.message}")


def _row(host: dict[str, Any]) -> list[str]:
    state = "connected" if host["connected"] else (host["failure"] or "not connected")
    contact = moment(host["last_contact"]) or "never"
    return [host["host"], state, str(host["jobs"]), contact, str(host["calls"]), str(host["queries"])]


@click.group()
def agent() -> None:
    """Look after the process that owns this machine's connections.

    It starts by itself when a step needs a host, and ends when nobody has used it for 15 minutes.
    """


agent.add_command(status)


@agent.command()
def start() -> None:
    """Start the agent if it does not run."""
    with errors_told():
        pipe = client.connected()
        answer = client.ask(pipe, "status")
        pipe.close()
    click.echo(f"The agent runs: pid {answer['pid']}, socket {place.address()}")


@agent.command()
def stop() -> None:
    """End the agent and its connections. Jobs and waiting steps are not harmed; a login has to be made again."""
    with errors_told():
        answer = client.stop()
    click.echo("No agent runs." if answer is None else f"The agent (pid {answer['pid']}) has ended.")
