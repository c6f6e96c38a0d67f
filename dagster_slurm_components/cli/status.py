"""``dg-slurm status``: hosts, sessions, jobs watched, last contact, queries made."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from dagster_slurm_components.cli.terminal import errors_told, json_option, table
from dagster_slurm_components.hosts.agent import client, place
from dagster_slurm_components.hosts.attempts import failing


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the connections of this machine, the jobs watched through them, and the Slurm queries made."""
    show(as_json)


def show(as_json: bool) -> None:
    """Print what the agent knows, and the hosts that processes with or without it wait for."""
    with errors_told():
        said = client.status()
        waiting = failing(place.folder())
    if as_json:
        parked = [{"host": one.host, "since": one.since, "why": str(one.error)} for one in waiting]
        told = {"running": said is not None, **{k: v for k, v in (said or {}).items() if k != "ok"}}
        click.echo(json.dumps({**told, "parked": parked}, indent=2))
        return
    if said is None:
        click.echo("No agent runs: no process on this machine has used a host for a while.")
    else:
        click.echo(f"agent: pid {said['pid']}, since {_when(said['since'])}, {said['clients']} clients")
    if said is not None and said["hosts"]:
        columns = ["host", "state", "jobs", "last contact", "calls", "Slurm queries"]
        table(columns, [_row(host) for host in said["hosts"]])
    for one in waiting:
        click.echo(f"waited for: {one.host} since {_when(one.since)}: {one.error.message}")


def _row(host: dict[str, Any]) -> list[str]:
    state = "connected" if host["connected"] else (host["failure"] or "not connected")
    contact = _when(host["last_contact"]) if host["last_contact"] else "never"
    return [host["host"], state, str(host["jobs"]), contact, str(host["calls"]), str(host["queries"])]


def _when(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))
