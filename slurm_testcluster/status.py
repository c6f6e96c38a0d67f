"""What a cluster is doing, as plain data for tables and for ``--json``."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slurm_testcluster import daemons
from slurm_testcluster.client import run_program
from slurm_testcluster.layout import Layout

# A node in a state that begins like this takes no jobs.
_BAD_NODES = ("down", "drain", "fail", "error", "unknown", "inval")


@dataclass(frozen=True)
class DaemonStatus:
    """One daemon: ``state`` is ``up`` or ``down``; a daemon that is down has no pid."""

    name: str
    state: str
    pid: int | None


@dataclass(frozen=True)
class NodeStatus:
    """One node as sinfo shows it, and the partitions it is in."""

    name: str
    state: str
    cpus: int
    memory_mb: int
    gres: str
    partitions: list[str]


@dataclass(frozen=True)
class PartitionStatus:
    """One partition as sinfo shows it."""

    name: str
    state: str
    nodes: int
    default: bool


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster at one moment.

    Args:
        folder: Where it lies.
        state: ``up`` (all of it), ``partly`` or ``down``.
        daemons: Each daemon.
        nodes: Each node; empty when the controller does not answer.
        jobs: How many jobs there are in each state; empty when the controller does not answer.
    """

    folder: Path
    state: str
    daemons: list[DaemonStatus] = field(default_factory=list)
    nodes: list[NodeStatus] = field(default_factory=list)
    partitions: list[PartitionStatus] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def look(layout: Layout) -> ClusterStatus:
    """Ask a cluster how it is; never waits long for a controller that does not answer."""
    known = [daemon for wave in daemons.waves(layout, find=lambda name: name) for daemon in wave]
    rows = []
    for daemon in known:
        identity = daemons.running(daemon, layout)
        rows.append(
            DaemonStatus(daemon.name, "up" if identity else "down", identity.pid if identity else None)
        )
    running = [row for row in rows if row.state == "up"]
    if not running:
        return ClusterStatus(layout.folder, "down", rows)
    # Without munged, too, each question would take as long as its timeout.
    answers = {"slurmctld", "munged"} <= {row.name for row in running}
    nodes = node_states(layout) if answers else []
    whole = len(running) == len(rows) and nodes_are_good(nodes)
    return ClusterStatus(
        layout.folder,
        "up" if whole else "partly",
        rows,
        nodes,
        partition_states(layout) if nodes else [],
        job_counts(layout) if nodes else {},
    )


def _lines(layout: Layout, argv: list[str]) -> list[str]:
    try:
        completed = run_program(layout, argv, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return []
    return completed.stdout.splitlines() if completed.returncode == 0 else []


def node_states(layout: Layout) -> list[NodeStatus]:
    """Return the state of each node; empty when the controller does not answer."""
    nodes: dict[str, NodeStatus] = {}
    for line in _lines(layout, ["sinfo", "-h", "-N", "-o", "%N|%T|%c|%m|%G|%R"]):
        name, state, cpus, memory, gres, partition = line.split("|")
        node = nodes.setdefault(name, NodeStatus(name, state, int(cpus), int(memory), gres, []))
        node.partitions.append(partition)
        node.partitions.sort()
    return list(nodes.values())


def nodes_are_good(nodes: list[NodeStatus]) -> bool:
    """Whether there are nodes and each takes jobs (a trailing ``*`` means that it does not answer)."""
    return bool(nodes) and not any(
        node.state.startswith(_BAD_NODES) or node.state.endswith("*") for node in nodes
    )


def partition_states(layout: Layout) -> list[PartitionStatus]:
    """Return each partition; empty when the controller does not answer."""
    rows = [line.split("|") for line in _lines(layout, ["sinfo", "-h", "-s", "-o", "%P|%a|%D"])]
    return [
        PartitionStatus(name.rstrip("*"), state, int(nodes), name.endswith("*"))
        for name, state, nodes in rows
    ]


def job_counts(layout: Layout) -> dict[str, int]:
    """Count jobs by state; empty when there are none or the controller does not answer."""
    counts: dict[str, int] = {}
    for state in _lines(layout, ["squeue", "-h", "-r", "-o", "%T"]):
        counts[state] = counts.get(state, 0) + 1
    return counts
