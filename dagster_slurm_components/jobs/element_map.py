"""All elements of an array as one map: a cell each, coloured by how it ended."""

from collections import Counter
from collections.abc import Sequence

from dagster_slurm_components.jobs import svg

DONE = "done"
COLOURS = {
    DONE: svg.COLOURS[2],
    "FAILED": svg.COLOURS[1],
    "OUT_OF_MEMORY": svg.COLOURS[3],
    "TIMEOUT": svg.COLOURS[0],
}
_ROW, _CELL, _SIZE = 50, 12, 10
_MOST = 1000
"""Cells; of more elements several share one, which shows one that failed, if any did."""


def element_map(states: Sequence[str]) -> str:
    """Return the map as Markdown with the counts below it; a state is ``DONE`` or Slurm's word for the end."""
    share = -(-len(states) // _MOST)
    cells = [_worst(states[at : at + share]) for at in range(0, len(states), share)]
    height, counts = -(-len(cells) // _ROW) * _CELL, Counter(states)
    parts, said = [], []
    for place, state in enumerate(sorted(counts, key=lambda state: [*COLOURS, state].index(state))):
        said.append(f"{counts[state]} {state}")
        left = place * _ROW * _CELL // 4
        # A cell is a dash: a row of equal ones is one command, and the last one is the legend's.
        runs = [*_runs(cells, state), (left, height + 12, _SIZE)]
        drawn = "".join(f"M{x} {y}h{width}" for x, y, width in runs)
        cell = {"stroke_width": _SIZE, "stroke_dasharray": f"{_SIZE} {_CELL - _SIZE}"}
        parts.append(svg.stroke(drawn, COLOURS.get(state, svg.GREY), **cell))
        parts.append(svg.text(left + 14, height + 16, said[-1]))
    width = max(_ROW * _CELL, len(said) * _ROW * _CELL // 4)
    picture = svg.svg(width, height + 20, *parts, font_family="sans-serif", font_size=12)
    each = f"; {share} elements a cell" if share > 1 else ""
    return f"{svg.image('elements', picture)}\n\n{', '.join(said)}{each}"


def _worst(states: Sequence[str]) -> str:
    return next((state for state in states if state != DONE), DONE)


def _runs(cells: Sequence[str], state: str) -> list[tuple[int, int, int]]:
    """Return where equal cells beside each other begin, and how wide they are together."""
    runs: list[tuple[int, int, int]] = []
    for at, each in enumerate(cells):
        x, y = at % _ROW * _CELL, at // _ROW * _CELL + _SIZE // 2
        if each != state:
            continue
        if runs and runs[-1][1] == y and runs[-1][0] + runs[-1][2] + _CELL - _SIZE == x:
            runs[-1] = (runs[-1][0], y, runs[-1][2] + _CELL)
        else:
            runs.append((x, y, _SIZE))
    return runs
