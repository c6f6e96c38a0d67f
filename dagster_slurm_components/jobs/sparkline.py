"""What a job used, on one line: small enough to be drawn in the table of an asset's page."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dagster_slurm_components.jobs import series, svg
from dagster_slurm_components.jobs.live import number, used
from dagster_slurm_components.jobs.series import Grid, Line
from dagster_slurm_components.jobs.usage import NodeUsage

LONGEST = 999
"""Characters of Markdown that Dagster (1.13) draws inline; what is longer becomes a link."""
_COLUMNS = (64, 48, 40, 32, 24, 16, 12, 8)
_WIDTH, _HEIGHT, _GAP = 96, 24, 12


@dataclass(frozen=True)
class _Part:
    """One quantity: a line, the value at its top, whether that is what there was of it, and its figures in words."""

    name: str
    line: Line
    top: float
    limited: bool
    said: str


def sparkline(usage: Sequence[NodeUsage]) -> str | None:
    """Return memory, against its limit where there is one, CPU and GPUs of a job as one short block of Markdown.

    Of several nodes it shows the memory of the fullest, all CPUs together and the mean of all GPUs. There is none of
    fewer than three samples.
    """
    for columns in _COLUMNS:
        grid = series.grid(usage, columns)
        parts = _parts(grid, usage) if grid else []
        if not parts:
            return None
        markdown = svg.image(", ".join(part.name for part in parts), _drawn(parts))
        markdown += "\n\n" + ", ".join(part.said for part in parts)
        if len(markdown) <= LONGEST:
            return markdown
    return None


def _parts(grid: Grid, usage: Sequence[NodeUsage]) -> list[_Part]:
    found = []
    memory = together(series.memory(grid, usage), max)
    if memory.known:
        limit = max((node.memory_limit for node in usage if node.memory_limit is not None), default=None)
        most = max(each for each in map(series.peak, usage) if each is not None)
        said = f"memory {used([most], [limit])}{' on the fullest node' if len(usage) > 1 else ''}"
        found.append(_Part("memory", memory, max(most, limit or 0), limit is not None, said))
    cpu = together(series.cpus(grid, usage), sum)
    if cpu.known:
        count = sum(node.cpus for node in usage)
        said = f"CPU {number(statistics.fmean(cpu.known))} of {count}"
        found.append(_Part("CPU", cpu, max(count, *cpu.known), True, said))
    gpu = together(series.gpus(grid, usage, lambda sample: sample.busy), statistics.fmean)
    if gpu.known:
        found.append(_Part("GPU", gpu, 1.0, True, f"GPU {100 * statistics.fmean(gpu.known):.0f} %"))
    return found


def together(lines: Sequence[Line], how: series.Reduce) -> Line:
    """Return one line of many, of the values that are known in each column."""
    columns = zip(*(line.values for line in lines), strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    return Line("", tuple(how(column) if column else None for column in known))


def _drawn(parts: Sequence[_Part]) -> str:
    drawn = []
    for place, part in enumerate(parts):
        left = place * (_WIDTH + _GAP)
        scale = (_HEIGHT - 3) / (part.top or 1)
        line = svg.path(part.line.values, left=left, width=_WIDTH, bottom=_HEIGHT - 1, scale=scale)
        drawn.append(svg.stroke(line, svg.COLOURS[place]))
        if part.limited:
            drawn.append(svg.stroke(f"M{left} 1h{_WIDTH}", stroke_dasharray=2))
    return svg.svg(len(parts) * (_WIDTH + _GAP) - _GAP, _HEIGHT, *drawn, fill="none", stroke_width=1.5)
