"""What a job used, in numbers that Dagster plots from run to run."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from dagster_slurm_components.jobs import series
from dagster_slurm_components.jobs.usage import GpuSample, NodeUsage, Sample

_COLUMNS = 100
_HIGH = 0.9
"""CPUs are counted that are enough for nine tenths of the time."""
_IDLE = 0.02
"""A GPU that was never busier than that did nothing for the job."""


def usage_figures(usage: Sequence[NodeUsage]) -> Mapping[str, int | float | str | None]:
    """Return the figures of a job's newest start, by their names in Dagster; what is not known is none."""
    usage = [series.last_start(node) for node in usage]
    peaks = [peak for peak in map(series.peak, usage) if peak is not None]
    gpus = [samples for node in usage for samples in _gpus(node)]
    busy = [known for each in gpus if (known := _known(each, lambda gpu: gpu.busy))]
    memory = [known for each in gpus for known in _known(each, lambda gpu: gpu.memory)]
    joules = [max(known) for each in gpus if (known := _known(each, lambda gpu: gpu.joules))]
    return {
        "job/memory_max_mib": _mib(sum(peaks)) if peaks and len(peaks) == len(usage) else None,
        "job/memory_node_max_mib": _mib(max(peaks)) if len(usage) > 1 and peaks else None,
        "job/cpus_busy": _cpus_busy(usage),
        "job/gpus": len(gpus) or None,
        "job/gpus_idle": sum(max(known) <= _IDLE for known in busy) if busy else None,
        "job/gpu_busy": statistics.fmean(map(statistics.fmean, busy)) if busy else None,
        "job/gpu_memory_max_mib": _mib(max(memory)) if memory else None,
        "job/read_mib": _mib(_sum(usage, lambda sample: sample.read)),
        "job/written_mib": _mib(_sum(usage, lambda sample: sample.written)),
        "job/energy_kwh": sum(joules) / 3.6e6 if joules else None,
        "job/energy_source": "GPUs alone, by their driver" if joules else None,
    }


def cpu_seconds(usage: Sequence[NodeUsage]) -> float | None:
    """Return the CPU time of a job's newest start on all nodes."""
    return _sum([series.last_start(node) for node in usage], lambda sample: sample.cpu)


def _gpus(node: NodeUsage) -> Iterable[list[GpuSample]]:
    for number in range(len(node.gpus)):
        yield [sample.gpus[number] for sample in node.samples if number < len(sample.gpus)]


def _known(samples: Iterable[GpuSample], of: Callable[[GpuSample], float | None]) -> list[float]:
    return [value for value in map(of, samples) if value is not None]


def _sum(usage: Sequence[NodeUsage], of: Callable[[Sample], float | None]) -> float | None:
    """Return what a counter had reached in the end, on all nodes; none where one node does not know it."""
    ends = [
        max((value for value in map(of, node.samples) if value is not None), default=None) for node in usage
    ]
    known = [end for end in ends if end is not None]
    return sum(known) if known and len(known) == len(ends) else None


def _cpus_busy(usage: Sequence[NodeUsage]) -> float | None:
    """Return how many CPUs were enough for nine tenths of the time, on the busiest node."""
    grid = series.grid(usage, _COLUMNS)
    lines = series.cpus(grid, usage) if grid else []
    # Of what is sorted, so that a short burst does not count.
    return max(
        (sorted(line.known)[int(len(line.known) * _HIGH)] for line in lines if line.known), default=None
    )


def _mib(size: float | None) -> float | None:
    return None if size is None else size / 2**20
