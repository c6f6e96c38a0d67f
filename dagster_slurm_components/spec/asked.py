"""What resources ask for, as numbers."""

import re

from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import memory_megabytes, time_seconds

_COUNTED = re.compile(r"(?:[^:,]+:)*(\d+)")


def nodes(resources: Resources) -> tuple[int, int] | None:
    """Return the fewest and the most nodes that are asked for, None if the scheduler decides.

    >>> nodes(Resources(nodes="2-4"))
    (2, 4)
    """
    if resources.nodes is None:
        return None
    counts = [int(part) for part in re.findall(r"\d+", re.sub(r":\d+", "", resources.nodes))]
    return min(counts), max(counts)


def gpus_per_node(resources: Resources, tasks_per_node: int | None = None) -> int | None:
    """Return the GPUs asked for on each node, None if the options don't say it for certain.

    ``tasks_per_node`` is how many a launcher makes where ``ntasks_per_node`` is not given.

    >>> gpus_per_node(Resources(gres="gpu:a100:4,shard:8"))
    4
    """
    if resources.gpus_per_node is not None:
        return total(resources.gpus_per_node)
    if resources.gres is not None:
        gpus = [part for part in resources.gres.split(",") if re.match(r"gpu(?:[:/]|$)", part)]
        if gpus:
            return sum(int(count[1]) if (count := re.search(r":(\d+)$", part)) else 1 for part in gpus)
    tasks = resources.ntasks_per_node or tasks_per_node
    if resources.gpus_per_task is not None and tasks is not None:
        return total(resources.gpus_per_task) * tasks
    if resources.gpus is not None and nodes(resources) in (None, (1, 1)):
        return total(resources.gpus)
    return None


def cpus_per_node(resources: Resources) -> int | None:
    """Return the CPUs asked for on each node, None if the options don't say it for certain."""
    tasks = resources.ntasks_per_node
    if tasks is None and nodes(resources) in (None, (1, 1)):
        tasks = resources.ntasks or 1
    return tasks * (resources.cpus_per_task or 1) if tasks is not None else None


def memory_per_node(resources: Resources) -> float | None:
    """Return the mebibytes asked for on each node, None if the options don't say it for certain."""
    if resources.mem is not None:
        return memory_megabytes(resources.mem)
    cpus, gpus = cpus_per_node(resources), gpus_per_node(resources)
    if resources.mem_per_cpu is not None and cpus is not None:
        return memory_megabytes(resources.mem_per_cpu) * cpus
    if resources.mem_per_gpu is not None and gpus is not None:
        return memory_megabytes(resources.mem_per_gpu) * gpus
    return None


def seconds(resources: Resources) -> int | None:
    """Return the time limit in seconds, None if it is unlimited or the partition decides."""
    return time_seconds(resources.time) if resources.time is not None else None


def total(gpus: str) -> int:
    """Return the number of GPUs that an option names, of all types.

    >>> total("a100:2,v100:1")
    3
    """
    return sum(int(count) for count in _COUNTED.findall(gpus))
