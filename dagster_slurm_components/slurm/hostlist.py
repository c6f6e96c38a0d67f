"""Slurm's compact lists of node names, such as ``node[01-03,7],gpu1``, written out."""

from __future__ import annotations

import re

from dagster_slurm_components.errors import DagsterSlurmError

MAX_NODES = 65_536
"""How many names one list may have; Slurm's own limit for a range is of the same order."""

_RANGE = re.compile(r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?")
_NOBODY = frozenset({"", "(null)", "None", "None assigned", "n/a", "N/A"})


def expand_hostlist(text: str, *, limit: int = MAX_NODES) -> tuple[str, ...]:
    """Write out a node list, keeping its order and the zeros that pad its numbers.

    Example:
        >>> expand_hostlist("node[01-03,7],gpu1")
        ('node01', 'node02', 'node03', 'node7', 'gpu1')
        >>> expand_hostlist("rack[0-1]n[1-2]")
        ('rack0n1', 'rack0n2', 'rack1n1', 'rack1n2')

    Args:
        text: As squeue, sacct or scontrol print it; their words for "no nodes" give an empty tuple.
        limit: Refuse to write out more names than this.

    Raises:
        DagsterSlurmError: The text is no node list, or has more names than ``limit``.
    """
    if text.strip() in _NOBODY:
        return ()
    names: list[str] = []
    for item in _split(text):
        names.extend(_expand_item(item, text, limit - len(names)))
    return tuple(names)


def _split(text: str) -> list[str]:
    """Cut at the commas outside of brackets."""
    items, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
        elif character == "," and depth == 0:
            items.append(text[start:index])
            start = index + 1
        if depth not in (0, 1):
            raise _bad(text, "its brackets do not match")
    if depth:
        raise _bad(text, "its brackets do not match")
    items.append(text[start:])
    return [item.strip() for item in items]


def _expand_item(item: str, text: str, limit: int) -> list[str]:
    """Write out one name with any number of bracketed ranges; the last one varies fastest."""
    if not item:
        raise _bad(text, "a name is empty")
    names = [""]
    for part in re.split(r"(\[[^\]]*\])", item):
        endings = _expand_ranges(part[1:-1], text, limit) if part.startswith("[") else [part]
        if len(names) * len(endings) > limit:
            raise _bad(text, "it has too many names")
        names = [name + ending for name in names for ending in endings]
    return names


def _expand_ranges(ranges: str, text: str, limit: int) -> list[str]:
    """Write out the inside of one pair of brackets."""
    numbers: list[str] = []
    for part in ranges.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise _bad(text, f"{part!r} is no number and no range")
        first, last = match["first"], match["last"] or match["first"]
        if int(last) < int(first):
            raise _bad(text, f"{part!r} runs backwards")
        if len(numbers) + int(last) - int(first) + 1 > limit:
            raise _bad(text, "it has too many names")
        numbers.extend(f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    return numbers


def _bad(text: str, why: str) -> DagsterSlurmError:
    shown = text if len(text) <= 200 else text[:200] + "..."
    return DagsterSlurmError(f"{shown!r} is no node list: {why}.")
