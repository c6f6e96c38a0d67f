"""One value of a YAML file replaced, and nothing else: comments and layout stay as they are."""

from typing import Any

import yaml

from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.source import parse_documents


def replaced(text: str, at: Position, value: str) -> str | None:
    """Return a YAML text with another scalar at a place, written as that one was: plain or in its quotes.

    There is none where no scalar is written there, and where more than this one value would change: an anchor's.

    Example:
        >>> replaced("{mem: 8G, time: '10'}  # tested", Position("", 1, 15), "20")
        "{mem: 8G, time: '20'}  # tested"
    """
    for token in yaml.scan(text):
        start = token.start_mark
        if isinstance(token, yaml.ScalarToken) and (start.line + 1, start.column + 1) == (at.line, at.column):
            if token.style in ("|", ">"):
                return None
            quote = token.style or ""
            new = text[: start.index] + quote + value + quote + text[token.end_mark.index :]
            return new if _is_one_change(text, new) else None
    return None


def _is_one_change(before: str, after: str) -> bool:
    try:
        trees = [[document.data for document in parse_documents(each, "")] for each in (before, after)]
    except SpecError:
        return False
    return _differences(*trees) == 1


def _differences(one: Any, other: Any) -> int:
    """Return how many values of two trees differ; one that is no mere value any more counts for several."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return sum(_differences(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return sum(map(_differences, one, other))
    whole = isinstance(one, dict | list) or isinstance(other, dict | list)
    return 0 if one == other else 2 if whole else 1
