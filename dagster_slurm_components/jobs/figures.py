"""The figures of a job that has ended: where it ran, what it used, how long it waited."""

import re
from collections.abc import Mapping, Sequence

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.jobs.totals import cpu_seconds, usage_figures
from dagster_slurm_components.jobs.usage import NodeUsage

_CPUS = re.compile(r"(\d+)(?:\(x(\d+)\))?")

Figure = str | int | float


def job_figures(
    handle: JobHandle,
    ended: Ended,
    *,
    profile: str,
    host: str,
    whole_nodes: bool = False,
    co2_g_per_kwh: float | None = None,
) -> Mapping[str, Figure]:
    """Return the figures of one ended job, each only where it is known; profile and host are told by name.

    Figures that the job measured itself stand until the accounting knows better. Slurm's energy is that of a job's
    nodes: it is the job's where that has ``whole_nodes``. What CO2 a kWh stands for, only the user knows.
    """
    observation, status = ended.observation, ended.evidence.status
    figures: dict[str, Figure | None] = {
        "job/id": handle.job_id,
        "job/state": observation.state,
        "job/exit_code": observation.exit_code,
        "job/restarts": observation.restarts or None,
        "job/host": host,
        "job/profile": profile,
        "job/run_directory": handle.run_dir,
    }
    figures |= usage_figures(ended.usage)
    sampled = figures["job/memory_max_mib"]
    if status:
        own = _own_figures(status, handle.submitted, ended.usage)
        figures |= {name: value for name, value in own.items() if value is not None}
    accounting = ended.evidence.accounting
    if accounting:
        figures |= {
            "job/partition": accounting.partition or figures.get("job/partition"),
            "job/nodes": accounting.nodes or figures.get("job/nodes"),
            "job/memory_asked_mib": _mib(accounting.req_mem_bytes),
            "job/node_hours": accounting.node_hours,
            "job/core_hours": accounting.hours(accounting.alloc_cpus),
            "job/gpu_hours": accounting.hours(accounting.alloc_gpus) or figures.get("job/gpu_hours"),
        }
        if accounting.energy_j is not None and whole_nodes:
            figures["job/energy_kwh"] = accounting.energy_j / 3.6e6
            figures["job/energy_source"] = "whole nodes, by Slurm"
        if accounting.used_memory_bytes is not None:
            # Both take samples, and Slurm seldom one in less than half a minute.
            figures["job/memory_max_mib"] = max(
                accounting.used_memory_bytes / 2**20, sampled if isinstance(sampled, float) else 0.0
            )
        if accounting.cpu_efficiency is not None:
            figures["job/cpu_efficiency"] = accounting.cpu_efficiency
    asked, most = figures.get("job/memory_asked_mib"), figures.get("job/memory_max_mib")
    if isinstance(asked, int | float) and isinstance(most, int | float) and asked:
        figures["job/memory_efficiency"] = most / asked
    energy = figures.get("job/energy_kwh")
    if isinstance(energy, float) and co2_g_per_kwh is not None:
        figures["job/co2_g"] = energy * co2_g_per_kwh
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in figures.items() if v is not None}


def _own_figures(
    status: StatusRecord, submitted: float | None, usage: Sequence[NodeUsage]
) -> dict[str, Figure | None]:
    nodes = status.nodes
    granted = status.get("cpus_per_node")
    cpus = _cpus(granted or "1")
    figures: dict[str, Figure | None] = {
        "job/partition": status.get("partition"),
        "job/nodes": status.get("nodes") or status.host,
        # Of several nodes it is that of the first.
        "job/memory_max_mib": _mib(status.memory_peak) if nodes == 1 or not usage else None,
        "job/memory_asked_mib": _asked(status, nodes, cpus),
    }
    if submitted is not None and status.started is not None:
        figures["job/queue_wait_s"] = max(0.0, status.started - submitted)
    if status.started is not None and status.ended is not None:
        elapsed = status.ended - status.started
        figures |= {"job/elapsed_s": elapsed, "job/node_hours": elapsed * nodes / 3600}
        figures["job/core_hours"] = elapsed * cpus / 3600 if granted else None
        figures["job/gpu_hours"] = elapsed * sum(len(node.gpus) for node in usage) / 3600 or None
        spent = status.cpu_seconds if nodes == 1 else cpu_seconds(usage) if len(usage) == nodes else None
        if spent is not None and elapsed > 0:
            figures["job/cpu_efficiency"] = min(1.0, spent / (elapsed * cpus))
    return figures


def _asked(status: StatusRecord, nodes: int, cpus: int) -> int | None:
    """Return the memory of the whole allocation in MiB; Slurm grants it by node or by CPU."""
    for key, count in (("mem_per_node_mb", nodes), ("mem_per_cpu_mb", cpus)):
        text = status.get(key)
        if text and text.isdigit():
            return int(text) * count
    return None


def _cpus(text: str) -> int:
    """Return the CPUs of an allocation from Slurm's ``2(x3),1``: 7."""
    return sum(int(count) * int(times or 1) for count, times in _CPUS.findall(text)) or 1


def _mib(size: int | None) -> float | None:
    return size / 2**20 if size is not None else None
