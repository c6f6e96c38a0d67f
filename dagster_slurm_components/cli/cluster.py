"""``dg-slurm cluster up|down|status``: a real Slurm on this machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

import slurm_testcluster as slurm
from dagster_slurm_components.cli.terminal import errors_told, json_option, print_json, progress, table

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
    with errors_told(slurm.ClusterError), progress(quiet=as_json) as report:
        lab = slurm.up(folder, install=install, report=report)
        status = slurm.status(lab.folder)
    if as_json:
        print_json(
            {
                **status.as_dict(),
                **{name: getattr(lab, name) for name in ("user", "ssh_port", "profile")},
                **{name: str(getattr(lab, name)) for name in _FILES},
                "ports": lab.ports.used,
                "login": _login(lab),
            }
        )
        return
    _show_nodes(status)
    partitions = [
        [partition.name + (" (default)" if partition.default else ""), partition.state, str(partition.nodes)]
        for partition in status.partitions
    ]
    _table("Partitions", ["partition", "state", "nodes"], partitions)
    _table(
        "Ports on 127.0.0.1", ["sshd", "slurmctld", "slurmdbd"], [[str(port) for port in lab.ports.used[:3]]]
    )
    click.echo(f"Profile {lab.profile_file}:\n")
    click.echo(lab.profile_file.read_text())
    click.echo("Log in:              " + shlex.join(_login(lab)))
    click.echo(f"Slurm programs here: export SLURM_CONF={shlex.quote(str(lab.slurm_conf))}")


_FILES = ("slurm_conf", "key_file", "known_hosts_file", "profile_file")


@cluster.command("status")
@_folder_option
@json_option
def show_status(folder: Path | None, as_json: bool) -> None:
    """Show daemons, nodes and jobs; exits with 0 for up, 3 for down, 4 for partly up."""
    with errors_told(slurm.ClusterError):
        status = slurm.status(folder)
    if as_json:
        print_json(status.as_dict())
    else:
        click.echo(f"{status.folder}: {status.state}")
        if status.daemons:
            rows = [[daemon.name, daemon.state, str(daemon.pid or "-")] for daemon in status.daemons]
            _table("Daemons", ["daemon", "state", "pid"], rows)
        if status.nodes:
            _show_nodes(status)
            jobs = ", ".join(f"{count} {state}" for state, count in sorted(status.jobs.items()))
            click.echo(f"Jobs: {jobs or 'none'}")
    sys.exit(EXIT_CODES[status.state])


@cluster.command()
@_folder_option
@json_option
@click.option("--keep", is_flag=True, help="Keep the folder with keys, accounting and logs for a later `up`.")
def down(folder: Path | None, as_json: bool, keep: bool) -> None:
    """End the cluster's processes, its jobs among them, and remove its folder."""
    with errors_told(slurm.ClusterError), progress(quiet=as_json) as report:
        before = slurm.status(folder)
        slurm.down(folder, keep=keep, report=report)
    if as_json:
        print_json({"folder": str(before.folder), "was": before.state, "kept": keep})
    else:
        kept = "kept" if keep else "removed"
        click.echo(f"{before.folder}: was {before.state}, is down; the folder is {kept}")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one of several tables: a blank line parts them when piped."""
    table(columns, rows, title=title)
    if not sys.stdout.isatty():
        click.echo()


def _show_nodes(status: slurm.ClusterStatus) -> None:
    rows = [
        [
            *(node.name, node.state, str(node.cpus), str(node.memory_mb)),
            *("" if node.gres == "(null)" else node.gres, ",".join(node.partitions)),
        ]
        for node in status.nodes
    ]
    _table("Nodes", ["node", "state", "cpus", "memory MB", "gres", "partitions"], rows)


def _login(lab: slurm.Cluster) -> list[str]:
    options = [
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={lab.known_hosts_file}",
    ]
    words = [word for option in options for word in ("-o", option)]
    return [
        *("ssh", "-F", "none", *words, "-i", str(lab.key_file)),
        *("-p", str(lab.ssh_port), f"{lab.user}@127.0.0.1"),
    ]
