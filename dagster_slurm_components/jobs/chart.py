"""What a job used, as a chart: CPU, memory against its limit, GPUs, each restart, and how long it waited."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dagster_slurm_components.jobs import series, svg
from dagster_slurm_components.jobs.series import Grid, Line
from dagster_slurm_components.jobs.sparkline import together
from dagster_slurm_components.jobs.usage import NodeUsage
from dagster_slurm_components.units import format_duration, scale_of

LARGEST = 20_000
"""Characters of a chart's Markdown: it is kept with each materialization."""
_COLUMNS = (200, 140, 100, 70, 50, 30)
_MOST_LINES = 8
"""Of more, the mean is drawn, the lowest and the highest: eight are told apart by four colours and by dashes."""
_WIDTH, _LEFT, _RIGHT, _HEIGHT, _HEAD, _PER_ROW = 720, 52, 24, 96, 20, 4
_PLOT = _WIDTH - _LEFT - _RIGHT
_MOST_SAID, _LONGEST_NAME = 4, 22
_TIMES = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400)


@dataclass(frozen=True)
class _Panel:
    """One quantity of all nodes or GPUs, in the unit of its title; the limit is what there was of it."""

    title: str
    lines: Sequence[Line]
    limit: float | None = None
    limit_name: str = ""


def chart(usage: Sequence[NodeUsage], *, waited: float | None = None) -> str | None:
    """Return the chart of a job that waited so many seconds in the queue, as Markdown.

    There is none of fewer than three samples.
    """
    for columns in _COLUMNS:
        grid = series.grid(usage, columns)
        if grid is None:
            return None
        markdown = svg.image(
            "what the job used", _drawn(grid, _panels(grid, usage), _restarts(usage), waited)
        )
        if len(markdown) <= LARGEST:
            return markdown
    return None


def _panels(grid: Grid, usage: Sequence[NodeUsage]) -> list[_Panel]:
    limits = [node.memory_limit for node in usage if node.memory_limit]
    cards = [gpu.memory for node in usage for gpu in node.gpus if gpu.memory]
    busy = [_times(line, 100) for line in series.gpus(grid, usage, lambda sample: sample.busy)]
    gpu_memory = series.gpus(grid, usage, lambda sample: sample.memory)
    whole = "of each node" if len(usage) > 1 else "of the job"
    panels = [
        _Panel("CPUs busy", series.cpus(grid, usage), max(node.cpus for node in usage), f"CPUs {whole}"),
        _sizes("Memory", series.memory(grid, usage), limits, f": limit {whole}"),
        _Panel("GPUs busy in %", busy, 100, "%"),
        _sizes("GPU memory", gpu_memory, cards, " of each GPU"),
    ]
    return [panel for panel in panels if any(line.known for line in panel.lines)]


def _sizes(title: str, lines: Sequence[Line], limits: Sequence[int], limit_name: str) -> _Panel:
    scale, unit = scale_of(max([*limits, *(value for line in lines for value in line.known)], default=0))
    limit = max(limits) / scale if limits else None
    scaled = [_times(line, 1 / scale) for line in lines]
    return _Panel(f"{title} in {unit}", scaled, limit, f"{unit}{limit_name}")


def _times(line: Line, factor: float) -> Line:
    return Line(line.name, tuple(None if value is None else value * factor for value in line.values))


def _restarts(usage: Sequence[NodeUsage]) -> tuple[float, ...]:
    """Return when Slurm started the job anew, by the node that saw most of it."""
    return max((node.starts[1:] for node in usage), key=len, default=())


def _drawn(grid: Grid, panels: Sequence[_Panel], restarts: Sequence[float], waited: float | None) -> str:
    parts, top = [], 6
    for panel in panels:
        part, height = _panel(panel, top)
        plot = top + height - _HEIGHT
        marks = (f"M{svg.number(_x(grid, at))} {plot}v{_HEIGHT}" for at in restarts)
        parts += [part, *(svg.stroke(mark, stroke_width=1.5, stroke_dasharray="1 2") for mark in marks)]
        top += height + 12
    parts.append(_time_axis(grid, top + 4))
    said = (
        [] if waited is None or waited < 1 else [f"{format_duration(waited)} in the queue before it started"]
    )
    said += [f"start {number} at {format_duration(at - grid.begin)}" for number, at in enumerate(restarts, 2)]
    more = [f"and {len(said) - _MOST_SAID} more"] if len(said) > _MOST_SAID else []
    parts.append(svg.text(_LEFT, top + 28, "; ".join([*said[:_MOST_SAID], *more])))
    height = top + 38
    font = {"font_family": "sans-serif", "font_size": 12}
    return svg.svg(_WIDTH, height, *parts, fill="none", **font, viewBox=f"0 0 {_WIDTH} {height}")


def _panel(panel: _Panel, top: int) -> tuple[str, int]:
    """Return one panel, and how high it is with its title and legend."""
    lines = _few(panel.lines)
    named = len(lines) > 1
    head = _HEAD + 16 * math.ceil(len(lines) / _PER_ROW) * named
    bottom = top + head + _HEIGHT
    highest = max([0, panel.limit or 0, *(value for line in lines for value in line.known)]) or 1
    step = _step(highest / 4)
    ticks = math.ceil(highest / step)
    scale = _HEIGHT / (ticks * step)
    parts = [svg.text(_LEFT, top + 12, panel.title, font_weight="bold")]
    for tick in range(ticks + 1):
        y = bottom - tick * step * scale
        parts.append(svg.stroke(f"M{_LEFT} {svg.number(y)}h{_PLOT}", opacity=0.25))
        parts.append(svg.text(_LEFT - 6, y + 4, f"{tick * step:g}", text_anchor="end"))
    if panel.limit is not None:
        at = svg.number(bottom - panel.limit * scale)
        parts.append(svg.stroke(f"M{_LEFT} {at}h{_PLOT}", stroke_width=2, stroke_dasharray="6 4"))
        words = f"dashed: {panel.limit:.3g} {panel.limit_name}"
        parts.append(svg.text(_WIDTH - _RIGHT, top + 12, words, text_anchor="end"))
    for place, line in enumerate(lines):
        style: dict[str, object] = {"stroke_width": 1.5}
        style |= {"stroke_dasharray": "5 2"} if place >= len(svg.COLOURS) else {}
        colour = svg.COLOURS[place % len(svg.COLOURS)]
        drawn = svg.path(line.values, left=_LEFT, width=_PLOT, bottom=bottom, scale=scale)
        parts.append(svg.stroke(drawn, colour, **style))
        if named:
            x, y = _LEFT + place % _PER_ROW * _PLOT // _PER_ROW, top + _HEAD + 16 * (place // _PER_ROW)
            parts.append(svg.stroke(f"M{x} {y + 4}h18", colour, **style))
            parts.append(svg.text(x + 24, y + 8, line.name[:_LONGEST_NAME]))
    return "".join(parts), head + _HEIGHT


def _few(lines: Sequence[Line]) -> Sequence[Line]:
    if len(lines) <= _MOST_LINES:
        return lines
    kinds = (("highest", max), (f"mean of {len(lines)}", statistics.fmean), ("lowest", min))
    return [Line(name, together(lines, how).values) for name, how in kinds]


def _step(least: float) -> float:
    """Return 1, 2 or 5, or such a number by a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _x(grid: Grid, at: float) -> float:
    return _LEFT + (at - grid.begin) / (grid.end - grid.begin) * _PLOT


def _time_axis(grid: Grid, y: int) -> str:
    """Return the axis of time, from the first start."""
    span = grid.end - grid.begin
    step = next((each for each in _TIMES if span / each <= 6), math.ceil(span / 6 / 86400) * 86400)
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    size, unit = next((size, unit) for size, unit in units if step >= size)
    ticks = ((tick * step, f"{tick * step / size:g} {unit}") for tick in range(int(span / step) + 1))
    return "".join(svg.text(_x(grid, grid.begin + at), y, words, text_anchor="middle") for at, words in ticks)
