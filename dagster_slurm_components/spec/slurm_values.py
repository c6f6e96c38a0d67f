"""The formats of sbatch's option values, as `man sbatch` of Slurm 20.11 to 25.05 gives them."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from dagster_slurm_components.spec.base import LINE, Format, Word, shape
from dagster_slurm_components.spec.model import mistake
from dagster_slurm_components.units import TIME_LIMIT, parse_size, parse_time_limit

_UNLIMITED = ("UNLIMITED", "INFINITE")
_IN_ANY_CASE = ["".join(f"[{letter}{letter.lower()}]" for letter in word) for word in _UNLIMITED]
_TIME_FORMS = 'write "D-HH:MM:SS", "HH:MM:SS", "MM:SS" or "MM" (minutes), in quotes'
_MEMORY = re.compile(r"(\d{1,15})([KkMmGgTt]?)", re.ASCII)


def time_seconds(time: str) -> int | None:
    """Return the seconds of a Slurm time limit, None for an unlimited one; a ValueError if it is no time.

    >>> time_seconds("1-00:30:00")
    88200
    """
    if time.upper() in _UNLIMITED:
        return None
    seconds = parse_time_limit(time)
    if seconds is None:
        raise ValueError(f"not a Slurm time: {time!r}")
    return seconds


def memory_megabytes(memory: str) -> float:
    """Return the mebibytes of a Slurm memory size, a ValueError if it is none; without a unit it is mebibytes already.

    >>> memory_megabytes("8G")
    8192.0
    """
    size = parse_size(memory, default_unit="M") if _MEMORY.fullmatch(memory) else None
    if size is None:
        raise ValueError(f"not a Slurm memory size: {memory!r}")
    return size / 2**20


def _quoted(value: Any) -> Any:
    """Refuse numbers: without quotes ``12:00:00`` is 43200, which sbatch would take for minutes."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        shown = getattr(value, "text", value)
        raise mistake(
            f"expected a time in quotes, got the number {int(value) if shown != value else value}"
            " (YAML reads 12:00:00 without quotes as the number 43200)",
            _TIME_FORMS,
            "time",
        )
    return value


_NAME = r"[A-Za-z0-9_.\-]+"
_COUNT = r"\d{1,9}[KkMmGgTt]?"
_GPUS = rf"(?:(?:{_NAME}:)?\d{{1,5}})(?:,(?:{_NAME}:)?\d{{1,5}})*"
_GRES = rf"{_NAME}(?:[:/]{_NAME})?(?::{_COUNT})?(?::{_NAME})?"
_SIGNAL = r"(?:[RB]{1,2}:)?(?:(?:SIG)?[A-Z][A-Z0-9+\-]*|\d{1,2})(?:@\d{1,5})?"

Time = Annotated[
    Word,
    Format("|".join([TIME_LIMIT.pattern, *_IN_ANY_CASE]), "a time", hint=_TIME_FORMS),
    BeforeValidator(_quoted),
]
"""A time limit as sbatch reads it: ``D-HH:MM:SS``, ``HH:MM:SS``, ``MM:SS``, ``MM``; always in quotes."""
Moment = Annotated[Word, BeforeValidator(_quoted), shape("string", pattern=LINE)]
"""A point in time as sbatch reads it: ``16:00``, ``now+1hour``, ``2030-01-20T12:34:00``; always in quotes."""
Memory = Annotated[
    Word,
    Format(
        _MEMORY.pattern,
        "a memory size",
        hint="write a whole number and K, M, G or T, such as 8G; a number alone is mebibytes",
        minimum=0,
    ),
]
"""A size: ``8G``, ``512M``; a number alone is mebibytes; ``0`` is all of a node's memory."""
Nodes = Annotated[
    Word,
    Format(
        r"[1-9]\d{0,6}(?:-[1-9]\d{0,6}(?::\d{1,6})?)?(?:,[1-9]\d{0,6})*",
        "a number of nodes",
        "2 or 2-4",
        minimum=1,
    ),
]
Gpus = Annotated[Word, Format(_GPUS, "a number of GPUs", "2 or a100:2", minimum=0)]
Gres = Annotated[Word, Format(rf"none|{_GRES}(?:,{_GRES})*", "a list of generic resources", "gpu:a100:2")]
Signal = Annotated[Word, Format(_SIGNAL, "a signal", "B:USR1@120", minimum=1)]
Switches = Annotated[Word, Format(r"\d{1,6}(?:@.+)?", "a number of switches", "1@01:00:00", minimum=0)]
Hint = Literal["compute_bound", "memory_bound", "multithread", "nomultithread"]
Name = Annotated[Word, Format(r"[^\s]+", "a name", "gpu", minimum=0)]
"""One or more names without spaces, separated by commas where sbatch takes several."""
