"""A job that is alive as a row of ``dg-slurm top``: what it uses of what it has, in words and as small pictures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import pairwise

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.job_rows import COLUMNS as OF_JOBS
from dagster_slurm_components.cli.terminal import Columns, Row
from dagster_slurm_components.jobs.live import cpu_words, gpu_words, memory_words
from dagster_slurm_components.jobs.meter import UsageTail
from dagster_slurm_components.jobs.usage import Sample
from dagster_slurm_components.units import format_duration

POINTS = 12
"""Samples that a picture shows."""
_BARS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float], most: float) -> str:
    """Return values as bars, of which the highest stands for ``most``.

    >>> spark([0, 1, 4, 9], 8)
    '▁▂▅█'
    """
    top = len(_BARS) - 1
    return "".join(_BARS[max(0, min(top, int(top * value / most + 0.5)))] for value in values if most > 0)


def load(tails: Sequence[UsageTail]) -> Row:
    """Return what a job uses on its nodes: all that is known of each, words, and pictures of all nodes together."""
    known = [(tail.now, list(tail.recent or ())) for tail in tails if tail.now is not None]
    nodes, recent = [now for now, _ in known], [samples for _, samples in known]
    limits = [node.usage.memory_limit or 0 for node in nodes]
    memory = _together(recent, lambda before, after: after.memory or 0)
    return {
        "nodes": [{**asdict(node.usage), "cpu": node.cpu} for node in nodes],
        "memory": memory_words(nodes),
        "memory_bars": spark(memory, sum(limits) if all(limits) else max(memory, default=0)),
        "cpu": cpu_words(nodes),
        "cpu_bars": spark(_together(recent, _rate), sum(node.usage.cpus for node in nodes)),
        "gpu": gpu_words(nodes),
        "gpu_bars": spark(_together(recent, _busy), sum(len(node.gpus) for node in nodes)),
    }


def _together(recent: Sequence[Sequence[Sample]], figure: Callable[[Sample, Sample], float]) -> list[float]:
    """Return a figure of the samples of several nodes, added up from the newest ones on."""
    series = [[figure(*pair) for pair in pairwise(samples)][::-1] for samples in recent]
    return [sum(values) for values in zip(*series, strict=False)][::-1]


def _rate(before: Sample, after: Sample) -> float:
    seconds, used = after.at - before.at, (after.cpu or 0.0) - (before.cpu or 0.0)
    return max(0.0, used / seconds) if seconds > 0 else 0.0


def _busy(before: Sample, after: Sample) -> float:
    return sum(gpu.busy or 0.0 for gpu in after.gpus)


def _drawn(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]} {row[f'{name}_bars']}" if row[name] else ""


def _ran(row: Row) -> str:
    if row["ran_s"] is None:
        return ""
    limit = row["time_limit_s"]
    return format_duration(row["ran_s"]) + (f" of {format_duration(limit)}" if limit else "")


def _start(row: Row) -> str:
    start = row["expected_start"]
    return terminal.moment(datetime.fromisoformat(start).timestamp()) if start else ""


COLUMNS: Columns = {
    **{title: OF_JOBS[title] for title in ("job", "state", "step", "Dagster partition")},
    **{"ran": _ran, "memory": _drawn("memory"), "CPU": _drawn("cpu"), "GPU": _drawn("gpu")},
    **{"reason": "reason", "expected start": _start, "run": OF_JOBS["run"]},
}
