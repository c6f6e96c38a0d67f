"""``dg-slurm cluster up|down|status``: a real Slurm on this machine."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import slurm_testcluster as slurm
from dagster_slurm_components.cli import terminal

EXIT_CODES = {"up": 0, "down": 3, "partly": 4}
_FILES = ("slurm_conf", "key_file", "known_hosts_file", "profile_file")

_DAEMONS: terminal.Columns = {"daemon": "name", "state": "state", "pid": lambda row: row["pid"] or "-"}
_NODES: terminal.Columns = {
    **{"node": "name", "state": "state", "cpus": "cpus", "memory MB": "memory_mb"},
    "gres": lambda row: "" if row["gres"] == "(null)" else row["gres"],
    "partitions": lambda row: ",".join(row["partitions"]),
}
_PARTITIONS: terminal.Columns = {
    "partition": lambda row: row["name"] + (" (default)" if row["default"] else ""),
    **{"state": "state", "nodes": "nodes"},
}

_folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="DAGSTER_SLURM_CLUSTER",
    help="The one folder that holds the cluster.  [default: ~/.cache/dagster-slurm/cluster]",
)


class _Cluster(terminal.ErrorsTold):
    errors = slurm.ClusterError


@click.group(cls=_Cluster)
def cluster() -> None:
    """A real Slurm on this Debian or Ubuntu machine, for tests and first steps.

    Four virtual nodes (two with fake GPUs), accounting and an SSH server, as yourself and on loopback only.
    """


@cluster.command()
@_folder_option
@terminal.json_option
@click.option("--install/--no-install", default=True, help="Install missing Debian packages by apt-get.")
def up(folder: Path | None, as_json: bool, install: bool) -> None:
    """Start the cluster, or repair it; does nothing if it is up."""
    with terminal.progress(quiet=as_json) as report:
        was_up = slurm.status(folder).state == "up"
        lab = slurm.up(folder, install=install, report=report)
        facts = slurm.status(lab.folder).as_dict()
    if as_json:
        plain = {name: getattr(lab, name) for name in ("user", "ssh_port", "profile")}
        files = {name: str(getattr(lab, name)) for name in _FILES}
        terminal.print_json({**facts, **plain, **files, "ports": lab.ports.used, "login": _login(lab)})
        return
    if was_up:
        click.echo(f"{lab.folder}: was up already; `dg-slurm cluster status` shows its nodes and jobs")
        click.echo(f"Profile:             {lab.profile_file}")
    else:
        _show_new(lab, facts)
    click.echo("Log in:              " + shlex.join(_login(lab)))
    click.echo(f"Slurm programs here: export SLURM_CONF={shlex.quote(str(lab.slurm_conf))}")


def _show_new(lab: slurm.Cluster, facts: Mapping[str, Any]) -> None:
    _table("Nodes", _NODES, facts["nodes"])
    _table("Partitions", _PARTITIONS, facts["partitions"])
    ports = dict(zip(("sshd", "slurmctld", "slurmdbd"), lab.ports.used, strict=False))
    _table("Ports on 127.0.0.1", {name: name for name in ports}, [ports])
    click.echo(f"Profile {lab.profile_file}:\n")
    click.echo(lab.profile_file.read_text())


@cluster.command("status")
@_folder_option
@terminal.json_option
def show_status(folder: Path | None, as_json: bool) -> None:
    """Show daemons, nodes and jobs; exits with 0 for up, 3 for down, 4 for partly up."""
    status = slurm.status(folder)
    facts = status.as_dict()
    if as_json:
        terminal.print_json(facts)
    else:
        click.echo(f"{status.folder}: {status.state}")
        if status.daemons:
            _table("Daemons", _DAEMONS, facts["daemons"])
        if status.nodes:
            _table("Nodes", _NODES, facts["nodes"])
            jobs = ", ".join(f"{count} {state}" for state, count in sorted(status.jobs.items()))
            click.echo(f"Jobs: {jobs or 'none'}")
    sys.exit(EXIT_CODES[status.state])


@cluster.command()
@_folder_option
@terminal.json_option
@click.option("--keep", is_flag=True, help="Keep the folder with keys, accounting and logs for a later `up`.")
def down(folder: Path | None, as_json: bool, keep: bool) -> None:
    """End the cluster's processes, its jobs among them, and remove its folder."""
    with terminal.progress(quiet=as_json) as report:
        before = slurm.status(folder)
        slurm.down(folder, keep=keep, report=report)
    if as_json:
        terminal.print_json({"folder": str(before.folder), "was": before.state, "kept": keep})
    else:
        kept = "kept" if keep else "removed"
        click.echo(f"{before.folder}: was {before.state}, is down; the folder is {kept}")


def _table(title: str, columns: terminal.Columns, rows: list[terminal.Row]) -> None:
    """Print one of several tables: a blank line parts them when piped."""
    terminal.table(columns, terminal.cells(rows, columns), title=title)
    if not sys.stdout.isatty():
        click.echo()


def _login(lab: slurm.Cluster) -> list[str]:
    known = f"UserKnownHostsFile={lab.known_hosts_file}"
    options = ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", known]
    key, port = str(lab.key_file), str(lab.ssh_port)
    return ["ssh", "-F", "none", *options, "-i", key, "-p", port, f"{lab.user}@127.0.0.1"]
