"""The jobs of a run over time: how long each waited, how long it ran and how it ended, as a picture and as text."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from dagster_slurm_components.jobs import svg
from dagster_slurm_components.jobs.element_map import COLOURS, DONE
from dagster_slurm_components.units import format_duration

COMPLETED = "COMPLETED"
_MOST = 40
"""Jobs that are shown; of more the longest, from submission to end."""
_LABEL, _PLOT, _ROW, _BAR, _QUEUE = 210, 510, 14, 10, 3
_LONGEST_LABEL, _LONGEST_NAME = 28, 60


@dataclass(frozen=True)
class Span:
    """A job, or an array of them, from its submission to its end; times are seconds since the epoch.

    Attributes:
        name: Its step, with the partition or the number of its elements.
        submitted: None where nobody knows.
        started: When it, or the first of its elements, started for the first time; none if it never did.
        ended: When the last of it ended, or was left to itself.
        end: Slurm's word for how it ended.
    """

    job_id: str
    name: str
    submitted: float | None
    started: float | None
    ended: float
    end: str

    @property
    def began(self) -> float:
        """The first that is known of it."""
        return min(
            self.ended if each is None else each for each in (self.submitted, self.started, self.ended)
        )

    @property
    def starts_at(self) -> float:
        """When it started; what never did ended then."""
        return self.ended if self.started is None else self.started


def timeline(spans: Sequence[Span]) -> str:
    """Return one picture of a run's jobs as Markdown, with a sentence below it."""
    shown, began, ended = _shown(spans), min(each.began for each in spans), max(each.ended for each in spans)
    scale, bottom = _PLOT / max(1.0, ended - began), len(shown) * _ROW

    def bar(y: int, since: float, until: float) -> str:
        left, right = (_LABEL + round((at - began) * scale) for at in (since, until))
        return f"M{left} {y}h{max(1, right - left)}"

    rows = [(at * _ROW + _ROW // 2, span) for at, span in enumerate(shown)]
    waits = "".join(bar(y, span.began, span.starts_at) for y, span in rows if span.starts_at > span.began)
    parts = [svg.stroke(waits, stroke_width=_QUEUE)] if waits else []
    ran = sorted((row for row in rows if row[1].started is not None), key=lambda row: row[1].end)
    for end, same in groupby(ran, key=lambda row: row[1].end):
        drawn = "".join(bar(y, span.starts_at, span.ended) for y, span in same)
        parts.append(
            svg.stroke(drawn, COLOURS.get(DONE if end == COMPLETED else end, svg.GREY), stroke_width=_BAR)
        )
    parts += [svg.text(0, y + 4, _label(span)) for y, span in rows]
    parts.append(svg.text(_LABEL, bottom + 12, "0"))
    length = format_duration(ended - began)
    parts.append(svg.text(_LABEL + _PLOT, bottom + 12, length, text_anchor="end"))
    font = {"font_family": "sans-serif", "font_size": 12}
    picture = svg.image("jobs over time", svg.svg(_LABEL + _PLOT, bottom + 16, *parts, **font))
    return f"{picture}\n\n{_counted(spans)} in {length}; thin and grey: in the queue{_left_out(spans)}"


def table(spans: Sequence[Span]) -> str:
    """Return the same jobs as a table of plain text, in Markdown."""
    rows = [("job", "step", "submitted (UTC)", "waited", "ran", "end")]
    for span in _shown(spans):
        at, started = span.submitted, span.started is not None
        when = "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
        waited = "" if at is None else format_duration(span.starts_at - at)
        ran = format_duration(span.ended - span.starts_at) if started else ""
        rows.append((span.job_id, _cut(span.name, _LONGEST_NAME), when, waited, ran, span.end))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(["```text", *lines, "```", f"{_counted(spans)}{_left_out(spans)}"])


def _shown(spans: Sequence[Span]) -> Sequence[Span]:
    longest = sorted(spans, key=lambda span: span.began - span.ended)[:_MOST]
    return sorted(longest, key=lambda span: (span.began, span.name))


def _counted(spans: Sequence[Span]) -> str:
    return f"{len(spans)} job{'s' if len(spans) > 1 else ''}"


def _left_out(spans: Sequence[Span]) -> str:
    return f"; the {_MOST} that took longest are shown" if len(spans) > _MOST else ""


def _label(span: Span) -> str:
    name = _cut(span.name, _LONGEST_LABEL)
    return name if span.end == COMPLETED else f"{_cut(name, _LONGEST_LABEL - 1 - len(span.end))} {span.end}"


def _cut(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
