"""What Slurm tells of a cluster: commands, and pure parsers of their answers.

Formats were compared with Slurm 22.05; names of fields are those of its manuals from 20.11 on.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

CONFIG = ("scontrol", "show", "config")
PARTITIONS = ("scontrol", "show", "partition", "--all", "--oneliner")
NODE_KINDS = ("sinfo", "--all", "--noheader", "--format=%R|%D|%c|%m|%G")
_SACCTMGR = ("sacctmgr", "--noheader", "--parsable2", "show")
ENDED_JOBS = ("sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now", "--format=JobID")
QUALITIES = (*_SACCTMGR, "qos", "format=Name,MaxWall,MaxSubmitPU,MaxTRES,MinTRES")

Partition = Mapping[str, str]
"""A partition by slurmctld's own words: ``MaxTime`` is read by ``limit``, ``MaxNodes`` by ``number``, ``AllowQos`` by
``members``; its ``State`` is ``UP``, ``DOWN``, ``DRAIN`` or ``INACTIVE``."""

_FIELD = re.compile(r"(\w+)=(\S*)")
_NOTHING = ("", "(null)", "N/A", "NONE", "UNLIMITED", "INFINITE")


def associations_of(user: str) -> tuple[str, ...]:
    """Return the command that lists what a user may use."""
    wanted = "format=Account,Partition,QOS,DefaultAccount,DefaultQOS,MaxWall,MaxSubmit"
    return (*_SACCTMGR, "user", f"name={user}", "withassoc", wanted)


class NodeKind(NamedTuple):
    """What one of some nodes of a partition has, which are alike; a type of GPU only if Slurm knows one."""

    partition: str
    cpus: int
    memory_mb: int
    gpus: int
    gpu_type: str | None


class Association(NamedTuple):
    """An account, the partition that it holds for (None for all), and the QOS that one user may use with it.

    ``default`` is the account of jobs that name none, ``default_quality`` their QOS. One job may ask for ``max_time``,
    and the user have ``max_submit_jobs``.
    """

    account: str
    partition: str | None
    qualities: frozenset[str]
    default: str | None
    default_quality: str | None
    max_time: str | None
    max_submit_jobs: int | None


def parse_config(out: str) -> dict[str, str]:
    """Read ``scontrol show config``: value by name.

    Example:
        >>> parse_config("ClusterName             = lab")
        {'ClusterName': 'lab'}
    """
    pairs = (line.split(" = ", 1) for line in out.splitlines() if " = " in line)
    return {name.strip(): value.strip() for name, value in pairs}


def parse_partitions(out: str) -> dict[str, Partition]:
    """Read ``scontrol show partition --oneliner``, by name; lines that are none are passed over."""
    rows = (dict(_FIELD.findall(line)) for line in out.splitlines())
    return {row["PartitionName"]: row for row in rows if row.get("PartitionName")}


def default_partition(partitions: Mapping[str, Partition]) -> str | None:
    """Return the partition of jobs that name none."""
    return next((name for name, row in partitions.items() if row.get("Default") == "YES"), None)


def parse_node_kinds(out: str) -> list[NodeKind]:
    """Read ``sinfo``'s answer to ``NODE_KINDS``."""
    # A plus after a number says that some of the nodes have more.
    return [
        NodeKind(partition, number(cpus) or 0, number(memory) or 0, *parse_gpus(gres))
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
            total += number(rest[-1]) or 0
            kinds += rest[:-1]
    return total, kinds[0] if len(set(kinds)) == 1 else None


def parse_qualities(out: str) -> dict[str, dict[str, Any]]:
    """Read ``sacctmgr``'s answer to ``QUALITIES``: by name the limits for one job or user, as a site writes them."""
    return {
        name: {
            "max_time": limit(max_time),
            "min_nodes": _tres(least).get("node"),
            "max_nodes": _tres(most).get("node"),
            "max_submit_jobs": number(submit),
        }
        for name, max_time, submit, most, least in _rows(out, 5)
    }


def parse_associations(out: str) -> list[Association]:
    """Read ``sacctmgr``'s answer to ``associations_of``."""
    return [
        Association(
            account,
            partition or None,
            frozenset(filter(None, qualities.split(","))),
            default or None,
            quality or None,
            limit(max_time),
            number(submit),
        )
        for account, partition, qualities, default, quality, max_time, submit in _rows(out, 7)
        if account and account.isprintable()
    ]


def _rows(out: str, width: int) -> list[list[str]]:
    rows = [[field.strip() for field in line.split("|")] for line in out.splitlines()]
    return [row for row in rows if len(row) == width]


def _tres(text: str) -> dict[str, int]:
    pairs = (entry.partition("=") for entry in text.split(",") if "=" in entry)
    return {name: count for name, _, value in pairs if (count := number(value)) is not None}


def limit(text: str | None) -> str | None:
    """Return what Slurm wrote, or nothing where it wrote in one of its ways that there is none."""
    return None if text is None or text.strip() in _NOTHING else text.strip()


def number(text: str | None) -> int | None:
    """Return the number that a text begins with."""
    match = re.match(r"\d{1,12}", (text or "").strip())
    return int(match[0]) if match else None


def members(text: str | None) -> frozenset[str] | None:
    """Return the members of a set; nothing where it is all."""
    value = limit(text)
    return None if value is None or value == "ALL" else frozenset(value.split(","))
