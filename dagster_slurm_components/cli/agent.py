"""``dg-slurm login``, ``status`` and ``agent``: the process that owns this machine's connections."""

import contextlib
from pathlib import Path

import click

from dagster_slurm_components.cli.terminal import (
    Columns,
    Group,
    Row,
    cells,
    iso,
    json_option,
    moment,
    print_json,
    profile_argument,
    table,
)
from dagster_slurm_components.errors import DagsterSlurmError, HostError
from dagster_slurm_components.hosts.agent import client, place
from dagster_slurm_components.hosts.answers import Prompt
from dagster_slurm_components.hosts.attempts import failing
from dagster_slurm_components.hosts.base import address
from dagster_slurm_components.hosts.certificate import validity
from dagster_slurm_components.spec.hosts import SshHost
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.profiles import load_profile, profile_names

_COLUMNS: Columns = {
    "host": "host",
    "profiles": lambda row: ", ".join(row["profiles"]),
    "state": lambda row: "connected" if row["connected"] else _failure(row) or "not connected",
    "jobs": "jobs",
    "last contact": lambda row: moment(row["last_contact"]) or "never",
    **{"calls": "calls", "Slurm queries": "queries"},
}


@click.command()
@profile_argument
def login(profile_name: str | None) -> None:
    """Log in to the host of a profile once; all Dagster processes of this machine use the login.

    What you type stays in the agent's memory. Steps that wait for this login go on by themselves.
    """
    loaded = load_profile(profile_name, start=Path.cwd())
    host = loaded.profile.host
    if not isinstance(host, SshHost):
        click.echo(f"Profile {loaded.name} runs on this machine: there is nothing to log in to.")
        return
    if not (host.agent and place.wanted()):
        raise DagsterSlurmError(
            "the agent is switched off, and a login lives in it",
            hint=f"Remove `agent: false` from the profile, or {place.SWITCH}=off from the environment.",
        )
    try:
        said = client.login(host, _ask)
    except HostError as error:
        raise error.of_profile(loaded.name) from error.__cause__
    click.echo(f"{'Logged in already' if said['already'] else 'Logged in'}: {said['host']}")
    ends = validity(host.key_file) if host.key_file else None
    if ends is not None:
        click.echo(f"The certificate of {host.key_file} {ends}.")


def _ask(prompt: Prompt) -> str:
    """Ask a question of the host on the terminal."""
    if prompt.instructions:
        click.echo(_printable(prompt.instructions), err=True)
    label = _printable(prompt.text).strip().removesuffix(":") or prompt.kind
    shown = f"[{prompt.host}] {label}"
    return str(click.prompt(shown, hide_input=True, default="", show_default=False, err=True))


def _printable(text: str) -> str:
    # A host must not move the cursor or paint on our terminal; a question is one line, of what can be seen alone.
    return "".join(filter(str.isprintable, text))


def _failure(row: Row) -> str:
    """Return the first line of why a host is not reached, without its name."""
    return (row["failure"] or "").partition("\n")[0].removeprefix(f"{row['host']}: ")


def _profiles_by_host() -> dict[str, list[str]]:
    """Return the names of this project's profiles by their hosts; one that can't be read now names none."""
    named: dict[str, list[str]] = {}
    for name in profile_names(Path.cwd()):
        with contextlib.suppress(SpecError):
            host = load_profile(name, start=Path.cwd()).profile.host
            if isinstance(host, SshHost):
                named.setdefault(address(host), []).append(name)
    return named


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the connections of this machine, the jobs watched through them, and the Slurm queries made."""
    # The hosts that processes wait for, with or without an agent.
    answer, waiting = client.status(), failing(place.folder())
    profiles = _profiles_by_host()
    hosts = [{**host, "profiles": profiles.get(host["host"], [])} for host in (answer or {}).get("hosts", [])]
    if as_json:
        parked = [{"host": one.host, "since": iso(one.since), "why": str(one.error)} for one in waiting]
        facts = {name: fact for name, fact in (answer or {}).items() if name != "ok"}
        if answer is not None:
            shown = [{**host, "last_contact": iso(host["last_contact"])} for host in hosts]
            facts |= {"hosts": shown, "since": iso(answer["since"])}
        print_json({"running": answer is not None, **facts, "parked": parked})
        return
    if answer is None:
        click.echo("No agent runs: no process on this machine has used a host for a while.")
    else:
        since = moment(answer["since"])
        click.echo(f"agent: pid {answer['pid']}, since {since}, {answer['clients']} clients")
        if hosts:
            table(_COLUMNS, cells(hosts, _COLUMNS))
    for one in waiting:
        hint = f" {one.error.hint}" if one.error.hint else ""
        click.echo(f"steps wait for {one.host} since {moment(one.since)}: {one.error.message}.{hint}")


@click.group(cls=Group)
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
