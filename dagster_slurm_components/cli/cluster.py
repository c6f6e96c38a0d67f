"""``dg-slurm cluster up|down|status``: a real Slurm on this machine."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import slurm_testcluster as slurm
from dagster_slurm_components.cli.options import json_option
from dagster_slurm_components.cli.terminal import errors_told, table

EXIT_CODES = {"up": 0, "down": 3, "partly": 4}

_folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="DAGSTER_SLURM_CLUSTER",
    help="The one folder that holds the cluster.  [default: ~/.cache/dagster-slurm/cluster]",
)


@click.group()
def cluster() -> None:
    """A real Slurm on this Debian or Ubuntu machine, for tests and first steps.

    Four virtual nodes (two with fake GPUs), accounting and an SSH server, as yourself and on loopback only.
    """


@cluster.command()
@_folder_option
@json_option
@click.option("--install/--no-install", default=True, help="Install missing Debian packages by apt-get.")
def up(folder: Path | None, as_json: bool, install: bool) -> None:
    """Start the cluster, or repair it; does nothing if it is up."""
    with errors_told(slurm.ClusterError), _progress(as_json) as report:
        made = slurm.up(folder, install=install, report=report)
        seen = slurm.status(made.folder)
    if as_json:
        click.echo(json.dumps(_summary(made, seen), indent=2))
        return
    _show_nodes(seen)
    partitions = [
        [partition.name + (" (default)" if partition.default else ""), partition.state, str(partition.nodes)]
        for partition in seen.partitions
    ]
    _table("Partitions", ["partition", "state", "nodes"], partitions)
    ports = made.layout.ports
    _table("Ports on 127.0.0.1", ["sshd", "slurmctld", "slurmdbd"], [[str(port) for port in ports.used[:3]]])
    click.echo(f"Profile {made.profile_file}:\n")
    click.echo(made.profile_file.read_text())
    click.echo("Log in:              " + shlex.join(_login(made)))
    click.echo(f"Slurm programs here: export SLURM_CONF={shlex.quote(str(made.slurm_conf))}")


@cluster.command()
@_folder_option
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """Show daemons, nodes and jobs; exits with 0 for up, 3 for down, 4 for partly up."""
    with errors_told(slurm.ClusterError):
        seen = slurm.status(folder)
    if as_json:
        click.echo(json.dumps(seen.as_dict(), indent=2))
    else:
        click.echo(f"{seen.folder}: {seen.state}")
        if seen.daemons:
            rows = [[daemon.name, daemon.state, str(daemon.pid or "-")] for daemon in seen.daemons]
            _table("Daemons", ["daemon", "state", "pid"], rows)
        if seen.nodes:
            _show_nodes(seen)
            jobs = ", ".join(f"{count} {state}" for state, count in sorted(seen.jobs.items()))
            click.echo(f"Jobs: {jobs or 'none'}")
    sys.exit(EXIT_CODES[seen.state])


@cluster.command()
@_folder_option
@json_option
@click.option("--keep", is_flag=True, help="Keep the folder with keys, accounting and logs for a later `up`.")
def down(folder: Path | None, as_json: bool, keep: bool) -> None:
    """End the cluster's processes, its jobs among them, and remove its folder."""
    with errors_told(slurm.ClusterError), _progress(as_json) as report:
        before = slurm.status(folder)
        slurm.down(folder, keep=keep, report=report)
    if as_json:
        click.echo(json.dumps({"folder": str(before.folder), "was": before.state, "kept": keep}, indent=2))
    else:
        kept = "kept" if keep else "removed"
        click.echo(f"{before.folder}: was {before.state}, is down; the folder is {kept}")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield what shows a line of progress: a spinner on a terminal, lines on stderr when piped."""
    if quiet:
        yield lambda line: None
    elif not sys.stderr.isatty():
        yield lambda line: click.echo(line, err=True)
    else:
        from rich.console import Console  # noqa: PLC0415 -- 0.1 s, and for terminals only
        from rich.markup import escape  # noqa: PLC0415

        with Console(stderr=True).status("looking") as spinner:
            yield lambda line: spinner.update(escape(line))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one of several tables: a blank line parts them when piped."""
    table(columns, rows, title=title)
    if not sys.stdout.isatty():
        click.echo()


def _show_nodes(seen: slurm.ClusterStatus) -> None:
    rows = [
        [
            node.name,
            node.state,
            str(node.cpus),
            str(node.memory_mb),
            "" if node.gres == "(null)" else node.gres,
            ",".join(node.partitions),
        ]
        for node in seen.nodes
    ]
    _table("Nodes", ["node", "state", "cpus", "memory MB", "gres", "partitions"], rows)


def _login(made: slurm.Cluster) -> list[str]:
    options = {
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": made.known_hosts_file,
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [
        "ssh",
        "-F",
        "none",
        *given,
        "-i",
        str(made.key_file),
        "-p",
        str(made.ssh_port),
        f"{made.user}@127.0.0.1",
    ]


def _summary(made: slurm.Cluster, seen: slurm.ClusterStatus) -> dict[str, Any]:
    return {
        **seen.as_dict(),
        "user": made.user,
        "ssh_port": made.ssh_port,
        "ports": list(made.layout.ports.used),
        "slurm_conf": str(made.slurm_conf),
        "key_file": str(made.key_file),
        "known_hosts_file": str(made.known_hosts_file),
        "login": _login(made),
        "profile_file": str(made.profile_file),
        "profile": made.profile,
    }
