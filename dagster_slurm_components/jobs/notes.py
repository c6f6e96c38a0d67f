"""What a job's figures say about what was asked for, in sentences that name the value to change."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dagster_slurm_components.jobs.live import number
from dagster_slurm_components.spec import asked
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.units import format_duration, rough_duration

_SHORTEST = 60.0
"""Seconds that a job must have run for what it used to say anything."""
_LEAST_MIB = 1024
_SPARE = 1.5
"""Memory and time that a job should have, by what it needed."""
_NEAR = 0.95
_WAIT, _SHORT = 600.0, 600.0
_NICE = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Note:
    """Something that a person should know about a job.

    Attributes:
        text: What is so, and where no value helps what to do.
        option: The field of ``resources`` that is to be changed, if one is.
        value: What it should be, as it is written in YAML.
    """

    text: str
    option: str | None = None
    value: str | None = None

    def told(self, where: str | None) -> str:
        """Return it as a sentence; ``where`` its option is written."""
        if self.value is None:
            return self.text
        place = f" ({where})" if where else ""
        return f"{self.text}: `{self.option}: {self.value}` would do{place}"


def notes(figures: Mapping[str, object], resources: Resources, *, keys: bool = False) -> tuple[Note, ...]:
    """Return the notes on a job of Slurm's by its figures and what it asked for; none on a short or small job.

    ``keys`` says that it made one partition of several.

    Example:
        >>> figures = {"job/elapsed_s": 3600, "job/memory_max_mib": 6000}
        >>> [note.told("train.yaml:12") for note in notes(figures, Resources(mem="256G"))]
        ['used 5.9 of 256 GiB: `mem: 10G` would do (train.yaml:12)']
    """
    known = {name: float(each) for name, each in figures.items() if isinstance(each, int | float)}
    return tuple(_notes(known, resources, completed=figures.get("job/state") == "COMPLETED", keys=keys))


def _notes(
    figures: Mapping[str, float], resources: Resources, *, completed: bool, keys: bool
) -> Iterator[Note]:
    elapsed, waited = figures.get("job/elapsed_s", 0.0), figures.get("job/queue_wait_s", 0.0)
    limit = asked.seconds(resources)
    if elapsed >= _SHORTEST:
        cpus, gpus = list(_cpus(figures, resources)), list(_gpus(figures, resources))
        # Fewer CPUs or GPUs would have less memory too.
        by_part = (resources.mem_per_cpu and cpus) or (resources.mem_per_gpu and gpus)
        yield from () if by_part else _memory(figures, resources)
        yield from (*gpus, *cpus)
        if completed and limit and _NEAR * limit <= elapsed < limit:
            left, whole = rough_duration(limit - elapsed), rough_duration(limit)
            yield Note(
                f"ended {left} before its {whole} limit", "time", f'"{format_duration(_SPARE * limit)}"'
            )
    if waited >= _WAIT and elapsed <= _SHORT and waited >= 10 * elapsed:
        do = "put several keys in one job (`array: {keys_per_task: ...}`)" if keys else "let one job do more"
        yield Note(f"waited {rough_duration(waited)}, ran {rough_duration(elapsed)}: {do}")


def _used_mib(figures: Mapping[str, float]) -> float | None:
    return figures.get("job/memory_node_max_mib", figures.get("job/memory_max_mib"))


def _memory(figures: Mapping[str, float], resources: Resources) -> Iterator[Note]:
    used, had = _used_mib(figures), asked.memory_per_node(resources)
    if not used or not had or had < _LEAST_MIB:
        return
    enough = _nice(max(_SPARE * used, used + 256))
    if enough > had / 2:
        return
    option, parts = "mem", 1
    if resources.mem_per_cpu is not None:
        option, parts = "mem_per_cpu", asked.cpus_per_node(resources) or 1
    elif resources.mem_per_gpu is not None:
        option, parts = "mem_per_gpu", asked.gpus_per_node(resources) or 1
    where = " on the fullest node" if "job/memory_node_max_mib" in figures else ""
    yield Note(
        f"used {number(used / 1024)} of {number(had / 1024)} GiB{where}", option, _size(_nice(enough / parts))
    )


def _cpus(figures: Mapping[str, float], resources: Resources) -> Iterator[Note]:
    had, busy = asked.cpus_per_node(resources) or 0, figures.get("job/cpus_busy")
    if busy is None and "job/cpu_efficiency" in figures:
        busy = 2 * figures["job/cpu_efficiency"] * had  # a mean: at times it was more
    if had < 2 or busy is None:
        return
    enough = max(1, math.ceil(busy - 0.1))
    if resources.mem_per_cpu is not None:
        each = (asked.memory_per_node(resources) or 0) / had
        used = _used_mib(figures)
        enough = had if not used or not each else max(enough, math.ceil(_SPARE * used / each))
    if enough > had / 2:
        return
    text = f"{max(1, round(busy))} of {had} CPUs used"
    tasks = had // (resources.cpus_per_task or 1)
    fewer = math.ceil(enough / tasks)
    lower = resources.cpus_per_task is not None and fewer < resources.cpus_per_task
    yield Note(text, "cpus_per_task", str(fewer)) if lower else Note(text)


def _gpus(figures: Mapping[str, float], resources: Resources) -> Iterator[Note]:
    idle, had = round(figures.get("job/gpus_idle", 0)), round(figures.get("job/gpus", 0))
    if not idle:
        return
    text, busy = f"{idle} of {had} GPUs idle", had - idle
    for option in ("gpus_per_node", "gpus", "gres"):
        count = re.fullmatch(r"((?:gpu:)?(?:[^:,]+:)?)(\d+)", str(getattr(resources, option) or ""))
        if count is not None and int(count[2]) == had and busy:
            yield Note(text, option, f"{count[1]}{busy}")
            return
    yield Note(text)


def _nice(mib: float) -> int:
    """Return the next round number of mebibytes, of gibibytes where it is that large."""
    unit = 1024 if mib > 1000 else 1
    power = 10 ** max(0, math.ceil(math.log10(max(1.0, mib / unit))) - 1)
    factor = next(each for each in _NICE if each * power * unit >= mib)
    return math.ceil(factor * power) * unit if factor * power != 1.5 else 2 * unit


def _size(mib: int) -> str:
    return f"{mib // 1024}G" if mib % 1024 == 0 else f"{mib}M"
