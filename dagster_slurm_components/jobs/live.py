"""What a running job uses, and how far it is, in words for a person to read."""

import time
from collections.abc import Callable, Sequence

from dagster_slurm_components.jobs.events import Watch
from dagster_slurm_components.jobs.meter import FIRST, NodeNow
from dagster_slurm_components.units import scale_of

_MOST_GPUS = 4
"""GPUs that are named one by one."""
_PAUSES = (300.0, 600.0, 1800.0)
"""Seconds from one line about what a job uses to the next: each is an event in Dagster's storage."""


class LiveNotice:
    """Tells what a job uses: once it has run for a minute, and then less and less often."""

    def __init__(self, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._began = self._next = 0.0
        self._told = 0

    def look(self, watch: Watch, progress: str = "") -> None:
        """Look at what is known of a watched job, with words for its progress; it may have been started anew."""
        if watch.changed_at != self._began:
            self._began, self._next, self._told = watch.changed_at, watch.changed_at + FIRST, 0
        now = self._clock()
        words = "; ".join(filter(None, (in_words(watch.meter.nodes), progress))) if now >= self._next else ""
        if words:
            self._tell(f"Job {watch.handle.job_id}: {words}")
            self._next = now + _PAUSES[min(self._told, len(_PAUSES) - 1)]
            self._told += 1


def in_words(nodes: Sequence[NodeNow]) -> str:
    r"""Return what a job uses on its nodes; of several the sum of CPUs, and the extremes of everything else.

    What is not known is left out; of nothing that is known the text is empty.

    Example:
        >>> from dagster_slurm_components.jobs.usage import parse_usage
        >>> usage = parse_usage(b'{"node": "n1", "t": 0}\n{"t": 5, "mem": 3221225472, "peak": 4294967296}\n')
        >>> in_words([NodeNow(usage)])
        'memory 3 GiB (peak 4)'
    """
    parts = uses(nodes)
    return f"on {len(nodes)} nodes: {parts}" if parts and len(nodes) > 1 else parts


def uses(nodes: Sequence[NodeNow]) -> str:
    """Return what nodes use, as ``in_words``, without their number."""
    cpu = f"CPU {cpus}" if (cpus := cpu_words(nodes)) else ""
    memory = f"memory {used}" if (used := memory_words(nodes)) else ""
    return ", ".join(filter(None, (memory, cpu, gpu_words(nodes))))


def memory_words(nodes: Sequence[NodeNow]) -> str:
    """Return the memory in use, as ``in_words``."""
    limits = [node.usage.memory_limit for node in nodes]
    peaks = [node.last.peak for node in nodes if node.last.peak is not None]
    in_use = used([node.last.memory for node in nodes], limits, *peaks)
    each = " each" if " of " in in_use and len(nodes) > 1 else ""
    scale, _ = scale_of(_same(limits) or max([*peaks, *(node.last.memory or 0 for node in nodes)], default=0))
    return f"{in_use}{each} (peak {number(max(peaks) / scale)})" if in_use and peaks else f"{in_use}{each}"


def cpu_words(nodes: Sequence[NodeNow]) -> str:
    """Return the CPUs in use, as ``in_words``."""
    known = [(node.cpu, node.usage.cpus) for node in nodes if node.cpu is not None]
    return f"{number(sum(cpu for cpu, _ in known))} of {sum(cpus for _, cpus in known)}" if known else ""


def gpu_words(nodes: Sequence[NodeNow]) -> str:
    """Return how busy GPUs are, and their memory, as ``in_words``; some are named one by one."""
    gpus = [each for node in nodes for each in zip(node.gpus, node.usage.gpus, strict=False)]
    alone = len(nodes) == 1 and len(gpus) <= _MOST_GPUS
    counted = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    groups = {f"GPU {at}": [gpu] for at, gpu in enumerate(gpus)} if alone else {counted: gpus}
    texts = []
    for name, group in groups.items():
        busy = [100 * gpu.busy for gpu, _ in group if gpu.busy is not None]
        parts = [f"{_range([f'{each:.0f}' for each in (min(busy), max(busy))])} %"] if busy else []
        parts.append(used([gpu.memory for gpu, _ in group], [card.memory for _, card in group]))
        texts += [f"{name}: {text}"] if (text := ", ".join(filter(None, parts))) else []
    return ", ".join(texts)


def used(sizes: Sequence[float | None], limits: Sequence[float | None], *others: float) -> str:
    """Return bytes in use, of those that there are where that is the same for all, in one unit."""
    known, limit = [size for size in sizes if size is not None], _same(limits)
    if not known:
        return ""
    scale, unit = scale_of(limit or max(*known, *others, 0))
    most = f" of {number(limit / scale)}" if limit else ""
    return f"{_range([number(each / scale) for each in (min(known), max(known))])}{most} {unit}"


def _same(values: Sequence[float | None]) -> float | None:
    return values[0] if len(set(values)) == 1 else None


def _range(ends: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


def number(value: float) -> str:
    """Write a number shortly: one decimal where it is small.

    >>> number(41.2), number(3.84), number(4.02)
    ('41', '3.8', '4')
    """
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")
