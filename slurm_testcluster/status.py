"""What a cluster is doing, as plain data for tables and for ``--json``."""

from __future__ import annotations

import subprocess
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slurm_testcluster import daemons
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
    """A cluster at one moment; nodes, partitions and jobs are empty when the controller does not answer.

    Args:
        folder: Where it lies.
        state: ``up`` (all of it), ``partly`` or ``down``.
        daemons: Each daemon.
        nodes: Each node.
        partitions: Each partition.
        jobs: How many jobs there are in each state.
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
    pids = {
        daemon.name: identity.pid if (identity := daemons.running(daemon, layout)) else None
        for daemon in daemons.all_daemons(layout)
    }
    rows = [DaemonStatus(name, "up" if pid else "down", pid) for name, pid in pids.items()]
    running = {name for name, pid in pids.items() if pid}
    # Without munged, too, each question would take as long as its timeout.
    nodes = node_states(layout) if {"slurmctld", "munged"} <= running else []
    whole = len(running) == len(rows) and nodes_are_good(nodes)
    state = "up" if whole else "partly" if running else "down"
    if not nodes:
        return ClusterStatus(layout.folder, state, rows)
    return ClusterStatus(layout.folder, state, rows, nodes, _partition_states(layout), job_counts(layout))


def _rows(layout: Layout, *argv: str) -> list[list[str]]:
    try:
        completed = layout.run(argv, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return []
    return [line.split("|") for line in completed.stdout.splitlines() if completed.returncode == 0]


def node_states(layout: Layout) -> list[NodeStatus]:
    """Return the state of each node; empty when the controller does not answer."""
    nodes: dict[str, NodeStatus] = {}
    for name, state, cpus, memory, gres, partition in _rows(
        layout, "sinfo", "-h", "-N", "-o", "%N|%T|%c|%m|%G|%R"
    ):
        node = nodes.setdefault(name, NodeStatus(name, state, int(cpus), int(memory), gres, []))
        node.partitions.append(partition)
        node.partitions.sort()
    return list(nodes.values())


def nodes_are_good(nodes: list[NodeStatus]) -> bool:
    """Whether there are nodes and each takes jobs (a trailing ``*`` means that it does not answer)."""
    return bool(nodes) and not any(
        node.state.startswith(_BAD_NODES) or node.state.endswith("*") for node in nodes
    )


def _partition_states(layout: Layout) -> list[PartitionStatus]:
    return [
        PartitionStatus(name.rstrip("*"), state, int(nodes), name.endswith("*"))
        for name, state, nodes in _rows(layout, "sinfo", "-h", "-s", "-o", "%P|%a|%D")
    ]


def job_counts(layout: Layout) -> dict[str, int]:
    """Count jobs by state; empty when there are none or the controller does not answer."""
    return dict(Counter(state for (state,) in _rows(layout, "squeue", "-h", "-r", "-o", "%T")))
