"""What Slurm tells of a cluster: commands, and pure parsers of their answers.

Formats were compared with Slurm 22.05; names of fields are those of its manuals from 20.11 on.
"""

from __future__ import annotations

import re
from typing import NamedTuple

CONFIG = ("scontrol", "show", "config")
PARTITIONS = ("scontrol", "show", "partition", "--all", "--oneliner")
NODE_KINDS = ("sinfo", "--all", "--noheader", "--format=%R|%D|%c|%m|%G")
_SACCTMGR = ("sacctmgr", "--noheader", "--parsable2", "show")
QUALITIES = (*_SACCTMGR, "qos", "format=Name,MaxWall,MaxSubmitPU,MaxTRES,MinTRES")

_FIELD = re.compile(r"(\w+)=(\S*)")
_NOTHING = ("", "(null)", "N/A", "NONE", "UNLIMITED", "INFINITE")


def associations_of(user: str) -> tuple[str, ...]:
    """Return the command that lists what a user may use."""
    return (*_SACCTMGR, "assoc", f"user={user}", "format=Account,Partition,QOS")


class PartitionFacts(NamedTuple):
    """A partition as slurmctld has it; None for a limit means that there is none, for a set that it is all.

    The state is ``UP``, ``DOWN``, ``DRAIN`` or ``INACTIVE``.
    """

    is_default: bool
    state: str
    max_time: str | None
    max_nodes: int | None
    min_nodes: int | None
    total_nodes: int | None
    accounts: frozenset[str] | None
    denied_accounts: frozenset[str]
    qualities: frozenset[str] | None
    denied_qualities: frozenset[str]


class NodeKind(NamedTuple):
    """What one of some nodes of a partition has, which are alike; a type of GPU only if Slurm knows one."""

    partition: str
    cpus: int
    memory_mb: int
    gpus: int
    gpu_type: str | None


class Association(NamedTuple):
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
    return {
        row["PartitionName"]: PartitionFacts(
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
        for row in rows
        if row.get("PartitionName")
    }


def parse_node_kinds(out: str) -> list[NodeKind]:
    """Read ``sinfo``'s answer to ``NODE_KINDS``."""
    # A plus after a number says that some of the nodes have more.
    return [
        NodeKind(partition, _number(cpus) or 0, _number(memory) or 0, *parse_gpus(gres))
        for partition, _, cpus, memory, gres in _rows(out, 5)
    ]


def parse_gpus(gres: str) -> tuple[int, str | None]:
    """Read the GPUs of a GRES list: how many, and of which type.

    Example:
        >>> parse_gpus("gpu:a100:4(S:0-1),nvme:1"), parse_gpus("gpu:2"), parse_gpus("(null)")
        ((4, 'a100'), (2, None), (0, None))
    """
    total, kinds = 0, []
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = entry.split(":")
        if name == "gpu" and rest:
            total += _number(rest[-1]) or 0
            kinds += rest[:-1]
    return total, kinds[0] if len(set(kinds)) == 1 else None


def parse_qualities(out: str) -> dict[str, dict[str, str | int | None]]:
    """Read ``sacctmgr``'s answer to ``QUALITIES``: by name the limits for one job or user, as a site writes them."""
    return {
        name: {
            "max_time": _value(max_time),
            "min_nodes": _tres(least).get("node"),
            "max_nodes": _tres(most).get("node"),
            "max_submit_jobs": _number(submit),
        }
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
