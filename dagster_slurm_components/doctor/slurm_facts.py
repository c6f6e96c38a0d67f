"""What Slurm tells of a cluster: commands, and pure parsers of their answers.

Formats were compared with Slurm 22.05; names of fields are those of its manuals from 20.11 on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CONFIG = ("scontrol", "show", "config")
PARTITIONS = ("scontrol", "show", "partition", "--all", "--oneliner")
NODE_KINDS = ("sinfo", "--all", "--noheader", "--format=%R|%D|%c|%m|%G")
QUALITIES = (
    *("sacctmgr", "--noheader", "--parsable2", "show", "qos"),
    "format=Name,MaxWall,MaxSubmitPU,MaxTRES,MinTRES",
)

_FIELD = re.compile(r"(\w+)=(\S*)")
_NOTHING = ("", "(null)", "N/A", "NONE", "UNLIMITED", "INFINITE")


def associations_of(user: str) -> list[str]:
    """Return the command that lists what a user may use."""
    return [
        *("sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}"),
        "format=Account,Partition,QOS",
    ]


@dataclass(frozen=True)
class PartitionFacts:
    """A partition as slurmctld has it; None for a limit means that there is none, for a set that it is all."""

    name: str
    is_default: bool
    state: str
    """``UP``, ``DOWN``, ``DRAIN`` or ``INACTIVE``."""
    max_time: str | None
    max_nodes: int | None
    min_nodes: int | None
    total_nodes: int | None
    accounts: frozenset[str] | None
    denied_accounts: frozenset[str]
    qualities: frozenset[str] | None
    denied_qualities: frozenset[str]


@dataclass(frozen=True)
class NodeKind:
    """Nodes of a partition that are alike: how many, and what one has; a type of GPU only if Slurm knows one."""

    partition: str
    count: int
    cpus: int
    memory_mb: int
    gpus: int
    gpu_type: str | None


@dataclass(frozen=True)
class Quality:
    """A quality of service and its limits for one job or user; None where there is none."""

    name: str
    max_time: str | None
    max_submit_jobs: int | None
    max_nodes: int | None
    min_nodes: int | None


@dataclass(frozen=True)
class Association:
    """An account, the partition that it holds for (None for all), and the QOS that one user may use with it."""

    account: str
    partition: str | None
    qualities: frozenset[str]


def parse_config(out: str) -> dict[str, str]:
    """Read ``scontrol show config``: value by name.

    Example:
        >>> parse_config("ClusterName             = lab")
        {'ClusterName': 'lab'}
    """
    pairs = (line.split(" = ", 1) for line in out.splitlines() if " = " in line)
    return {name.strip(): value.strip() for name, value in pairs}


def parse_partitions(out: str) -> dict[str, PartitionFacts]:
    """Read ``scontrol show partition --oneliner``, by name; lines that are none are passed over."""
    rows = (dict(_FIELD.findall(line)) for line in out.splitlines())
    return {row["PartitionName"]: _partition(row) for row in rows if row.get("PartitionName")}


def _partition(row: Mapping[str, str]) -> PartitionFacts:
    return PartitionFacts(
        name=row["PartitionName"],
        is_default=row.get("Default") == "YES",
        state=row.get("State", "UP"),
        max_time=_value(row.get("MaxTime")),
        max_nodes=_number(row.get("MaxNodes")),
        min_nodes=_number(row.get("MinNodes")),
        total_nodes=_number(row.get("TotalNodes")),
        accounts=_members(row.get("AllowAccounts")),
        denied_accounts=_members(row.get("DenyAccounts")) or frozenset(),
        qualities=_members(row.get("AllowQos")),
        denied_qualities=_members(row.get("DenyQos")) or frozenset(),
    )


def parse_node_kinds(out: str) -> list[NodeKind]:
    """Read ``sinfo``'s answer to ``NODE_KINDS``."""
    kinds = []
    for partition, count, cpus, memory, gres in _rows(out, 5):
        # A plus after a number says that some of the nodes have more.
        nodes, cores, megabytes = (_number(text) or 0 for text in (count, cpus, memory))
        kinds.append(NodeKind(partition, nodes, cores, megabytes, *parse_gpus(gres)))
    return kinds


def parse_gpus(gres: str) -> tuple[int, str | None]:
    """Read the GPUs of a GRES list: how many, and of which type.

    Example:
        >>> parse_gpus("gpu:a100:4(S:0-1),nvme:1"), parse_gpus("gpu:2"), parse_gpus("(null)")
        ((4, 'a100'), (2, None), (0, None))
    """
    total, kinds = 0, []
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = entry.split(":")
        if name != "gpu" or not rest:
            continue
        total += _number(rest[-1]) or 0
        kinds += rest[:-1]
    return total, kinds[0] if len(set(kinds)) == 1 else None


def parse_qualities(out: str) -> dict[str, Quality]:
    """Read ``sacctmgr``'s answer to ``QUALITIES``, by name."""
    return {
        name: Quality(
            name, _value(max_time), _number(submit), _tres(most).get("node"), _tres(least).get("node")
        )
        for name, max_time, submit, most, least in _rows(out, 5)
    }


def parse_associations(out: str) -> list[Association]:
    """Read ``sacctmgr``'s answer to ``associations_of``."""
    return [
        Association(account, partition or None, frozenset(filter(None, qualities.split(","))))
        for account, partition, qualities in _rows(out, 3)
    ]


def _rows(out: str, width: int) -> list[list[str]]:
    rows = [[field.strip() for field in line.split("|")] for line in out.splitlines()]
    return [row for row in rows if len(row) == width]


def _tres(text: str) -> dict[str, int]:
    pairs = (entry.partition("=") for entry in text.split(",") if "=" in entry)
    return {name: number for name, _, value in pairs if (number := _number(value)) is not None}


def _value(text: str | None) -> str | None:
    return None if text is None or text.strip() in _NOTHING else text.strip()


def _number(text: str | None) -> int | None:
    match = re.match(r"\d{1,12}", (text or "").strip())
    return int(match[0]) if match else None


def _members(text: str | None) -> frozenset[str] | None:
    value = _value(text)
    return None if value is None or value == "ALL" else frozenset(value.split(","))
