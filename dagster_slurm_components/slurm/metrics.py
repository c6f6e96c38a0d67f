"""What a job cost and how well it used what it asked for."""

from __future__ import annotations

from dataclasses import dataclass

from dagster_slurm_components.slurm.accounting import AccountingRow


@dataclass(frozen=True)
class Metrics:
    """Figures of one job's last start. ``None`` where the accounting has no value.

    Attributes:
        queue_wait_s: Seconds from submission (or the last requeue) to the start.
        elapsed_s: Seconds from start to end, by Slurm's own clock.
        cpu_efficiency: CPU time used, of CPUs times elapsed time: 0 to 1. Hardware threads that share a core
            and samples of short jobs may carry it past 1; it is cut there.
        max_memory_bytes: The most memory any one step held, all its tasks together. Slurm samples it, so
            short peaks are missed; steps that ran side by side aren't added up.
        asked_memory_bytes: The memory of the whole allocation, over all nodes.
        memory_efficiency: ``max_memory_bytes`` of ``asked_memory_bytes``: 0 to 1 and, without enforcement,
            beyond.
        node_hours: Nodes times elapsed hours.
        cpu_hours: CPUs times elapsed hours.
        gpu_hours: GPUs times elapsed hours; 0 without GPUs.
        restarts: How many earlier starts the accounting shows; their cost isn't in the figures above.
    """

    queue_wait_s: int | None
    elapsed_s: int | None
    cpu_efficiency: float | None
    max_memory_bytes: int | None
    asked_memory_bytes: int | None
    memory_efficiency: float | None
    node_hours: float | None
    cpu_hours: float | None
    gpu_hours: float | None
    restarts: int

    def as_dict(self) -> dict[str, int | float]:
        """Return the figures that are known, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def metrics(accounting: AccountingRow) -> Metrics:
    """Work out the figures of one job."""
    elapsed, cpus, nodes = accounting.elapsed_s, accounting.alloc_cpus, accounting.num_nodes
    wait = None
    if accounting.submit is not None and accounting.start is not None:
        wait = max(0, accounting.start - accounting.submit)
    cpu_efficiency = None
    if elapsed and cpus and accounting.total_cpu_s is not None:
        cpu_efficiency = min(1.0, accounting.total_cpu_s / (elapsed * cpus))
    used, asked = accounting.used_memory_bytes, accounting.req_mem_bytes
    started = accounting.start is not None and elapsed is not None
    return Metrics(
        queue_wait_s=wait,
        elapsed_s=elapsed if started else None,
        cpu_efficiency=cpu_efficiency,
        max_memory_bytes=used,
        asked_memory_bytes=asked,
        memory_efficiency=used / asked if used is not None and asked else None,
        node_hours=_hours(nodes, elapsed) if started else None,
        cpu_hours=_hours(cpus, elapsed) if started else None,
        gpu_hours=_hours(accounting.gpus, elapsed) if started else None,
        restarts=accounting.restarts,
    )


def _hours(count: int | None, elapsed: int | None) -> float | None:
    return None if count is None or elapsed is None else count * elapsed / 3600
