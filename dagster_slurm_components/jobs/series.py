"""What a job used, as lines over time on one grid of columns: what the pictures draw and the figures sum up."""

import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dagster_slurm_components.jobs.usage import GpuSample, NodeUsage, Sample

FEWEST = 3
"""Samples without which there is nothing to draw."""

_INSTANT = 1e-3
"""Seconds that are too few to say how fast something grew."""

Value = Callable[[Sample], float | None]
Reduce = Callable[[list[float]], float]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """Values in the columns of a grid, none where nothing is known: before a start, and between two of them."""

    name: str
    values: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        """The values that there are."""
        return [value for value in self.values if value is not None]


@dataclass(frozen=True)
class Grid:
    """Columns of equal width over a span of time; its ends are in seconds since the epoch."""

    begin: float
    end: float
    columns: int

    @property
    def width(self) -> float:
        """Seconds of a column."""
        return (self.end - self.begin) / self.columns

    def gauge(self, node: NodeUsage, value: Value, name: str, *, of: Reduce) -> Line:
        """Return a quantity as it was: ``of`` the samples in a column, or what lies between those beside it."""
        columns: list[float | None] = [None] * self.columns
        for points in _points(node, value):
            inside: dict[int, list[float]] = {}
            for at, known in points:
                inside.setdefault(self._column(at), []).append(known)
            for number in range(self._column(points[0][0]), self._column(points[-1][0]) + 1):
                middle = self.begin + (number + 0.5) * self.width
                columns[number] = of(inside[number]) if number in inside else _at(points, middle)
        return Line(name, tuple(columns))

    def rate(self, node: NodeUsage, value: Value, name: str) -> Line:
        """Return how fast a counter grew, a second; it counts from 0 since each start."""
        columns: list[float | None] = [None] * self.columns
        for points in _points(node, value, counts=True):
            first, last = points[0][0], points[-1][0]
            for number in range(self._column(first), self._column(last) + 1):
                left = max(self.begin + number * self.width, first)
                right = min(self.begin + (number + 1) * self.width, last)
                if right - left > _INSTANT:
                    columns[number] = max(0.0, _at(points, right) - _at(points, left)) / (right - left)
        return Line(name, tuple(columns))

    def _column(self, at: float) -> int:
        return max(0, min(self.columns - 1, int((at - self.begin) / self.width)))


def grid(usage: Sequence[NodeUsage], columns: int) -> Grid | None:
    """Return the grid from the first start to the last sample; none where too little is known to draw it."""
    times = [sample.at for node in usage for sample in node.samples]
    if max((len(node.samples) for node in usage), default=0) < FEWEST:
        return None
    begin = min([*times, *(start for node in usage for start in node.starts)])
    return Grid(begin, max(times), columns) if max(times) - begin >= 1 else None


def last_start(node: NodeUsage) -> NodeUsage:
    """Return what a node's newest start used."""
    newest = node.starts[-1:]
    samples = tuple(sample for sample in node.samples if not newest or sample.at >= newest[0])
    return replace(node, starts=newest, samples=samples)


def peak(node: NodeUsage) -> float | None:
    """Return the most bytes of memory that were in use on a node at a time."""
    seen = [size for sample in node.samples for size in (sample.memory, sample.peak) if size is not None]
    return max(seen, default=None)


def cpus(grid: Grid, usage: Sequence[NodeUsage]) -> list[Line]:
    """Return the CPUs that were busy on each node."""
    return [grid.rate(node, lambda sample: sample.cpu, node.node) for node in usage]


def memory(grid: Grid, usage: Sequence[NodeUsage]) -> list[Line]:
    """Return the bytes of memory on each node, the largest in each column."""
    return [grid.gauge(node, lambda sample: sample.memory, node.node, of=max) for node in usage]


def gpus(grid: Grid, usage: Sequence[NodeUsage], of: Callable[[GpuSample], float | None]) -> list[Line]:
    """Return something about each GPU of each node."""
    lines = []
    for node in usage:
        for number in range(len(node.gpus)):
            name = f"GPU {number}" if len(usage) == 1 else f"{node.node} GPU {number}"
            value = _of_gpu(number, of)
            lines.append(grid.gauge(node, value, name, of=statistics.fmean))
    return lines


def _of_gpu(number: int, of: Callable[[GpuSample], float | None]) -> Value:
    return lambda sample: of(sample.gpus[number]) if number < len(sample.gpus) else None


def _points(node: NodeUsage, value: Value, *, counts: bool = False) -> Iterator[Points]:
    """Yield the points of each start: no line leads from one start to the next."""
    starts: list[Points] = [[(start, 0.0)] if counts else [] for start in node.starts or (0.0,)]
    for sample in node.samples:
        known = value(sample)
        if known is not None:
            starts[max(0, bisect_right(node.starts, sample.at) - 1)].append((sample.at, known))
    yield from (points for points in starts if len(points) > counts)


def _at(points: Points, moment: float) -> float:
    """Return the value at a moment, on the straight line between the points beside it."""
    after = bisect_right(points, moment, key=lambda point: point[0])
    if after in (0, len(points)):
        return points[min(after, len(points) - 1)][1]
    (left, low), (right, high) = points[after - 1], points[after]
    return low + (high - low) * (moment - left) / (right - left)
