"""``dg-slurm login PROFILE``: answer once what the host asks, for all processes of this machine."""

from __future__ import annotations

from pathlib import Path

import click

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.agent import client, place
from dagster_slurm_components.hosts.answers import Prompt
from dagster_slurm_components.hosts.certificate import validity
from dagster_slurm_components.spec.hosts import SshHost
from dagster_slurm_components.spec.profiles import load_profile


@click.command()
@click.argument("profile")
def login(profile: str) -> None:
    """Log in to the host of PROFILE once; all Dagster processes of this machine use the login.

    What you type stays in the agent's memory. Steps that wait for this login go on by themselves.
    """
    host = load_profile(profile, start=Path.cwd()).profile.host
    if not isinstance(host, SshHost):
        click.echo(f"Profile {profile} runs on this machine: there is nothing to log in to.")
        return
    if not (host.agent and place.wanted()):
        raise DagsterSlurmError(
            "the agent is switched off, and a login lives in it",
            hint=f"Remove `agent: false` from the profile, or {place.SWITCH}=off from the environment.",
        )
    said = client.login(host, ask)
    click.echo(f"{'Logged in already' if said['already'] else 'Logged in'}: {said['host']}")
    ends = validity(host.key_file) if host.key_file else None
    if ends is not None:
        click.echo(f"The certificate of {host.key_file} {ends}.")


def ask(prompt: Prompt) -> str:
    """Ask a question of the host on the terminal."""
    if prompt.instructions:
        click.echo(_printable(prompt.instructions), err=True)
    label = _printable(prompt.text).strip().removesuffix(":") or prompt.kind
    shown = f"[{prompt.host}] {label}"
    return str(click.prompt(shown, hide_input=True, default="", show_default=False, err=True))


def _printable(text: str) -> str:
    # A host must not move the cursor or paint on our terminal.
    return "".join(character for character in text if character.isprintable())
