"""What models are made of: their base, and the scalar types of the vocabulary."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from dagster_slurm_components.spec.mistakes import kept, mistake
from dagster_slurm_components.spec.model import Model, option
from dagster_slurm_components.spec.problems import describe
from dagster_slurm_components.spec.shapes import (
    LINE,
    TEMPLATE,
    UNRENDERED,
    Format,
    OneMistake,
    or_template,
    shape,
)
from dagster_slurm_components.spec.source import AmbiguousInt

__all__ = [
    "LINE",
    "TEMPLATE",
    "UNRENDERED",
    "WHOLE",
    "AboveZero",
    "Count",
    "Duration",
    "Env",
    "Flag",
    "Format",
    "Int",
    "Model",
    "Number",
    "OneMistake",
    "Positive",
    "Scalar",
    "Text",
    "Variable",
    "Word",
    "duration_seconds",
    "kept",
    "mistake",
    "option",
    "or_template",
    "shape",
]

IN_QUOTES = "write it in quotes"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def _text(value: Any) -> Any:
    """Read text; a plain number is text too, unless its spelling would be lost."""
    if isinstance(value, bool):
        raise mistake(
            f"expected text, got {describe(value)} (YAML reads on, off, yes, no, true and false so)",
            IN_QUOTES,
            "text",
        )
    if isinstance(value, AmbiguousInt):
        raise mistake(f"expected text, got the number {int(value)} (YAML reads {value.text} so)", IN_QUOTES)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise mistake(f"expected text, got {describe(value)}", IN_QUOTES, "text")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise mistake("a NUL character can't be part of an argument or a variable")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise mistake("the text can't be written as UTF-8") from None
    return value


def _one_line(value: str) -> str:
    if not value.strip():
        raise mistake("expected text, got nothing")
    if _CONTROL.search(value):
        raise mistake("expected one line without control characters")
    return _without_nul(value)


def _whole_number(value: Any) -> Any:
    """Read a whole number; ``"4"`` is one too, for rendered templates are text."""
    if isinstance(value, bool):
        raise mistake(f"expected a whole number, got {describe(value)}", kind="whole_number")
    if isinstance(value, AmbiguousInt):
        raise mistake(
            f"{value.text} is {int(value)} to this YAML parser and something else to others",
            f"write {int(value)}",
        )
    if isinstance(value, (float, str)):
        plain = isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value)
        if plain or (isinstance(value, float) and value.is_integer()):
            return int(value)
        hint = None
        if isinstance(value, str) and re.fullmatch(r"[0-9.]+[eE][0-9]{1,2}", value):
            hint = f"write {int(float(value))}"
        raise mistake(f"expected a whole number, got {describe(value)}", hint, "whole_number")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, (bool, AmbiguousInt)):
        raise mistake(f"expected a number, got {describe(value)}", kind="number")
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise mistake(f"expected true or false, got {describe(value)}", kind="flag")
    return value


Text = Annotated[str, BeforeValidator(_text), AfterValidator(_without_nul), shape("string", "integer")]
"""Any text, of many lines too."""
Word = Annotated[
    str, BeforeValidator(_text), AfterValidator(_one_line), shape("string", "integer", pattern=LINE)
]
"""One line of text that is not empty and has no control characters."""
WHOLE = BeforeValidator(_whole_number)
"""Reads whole numbers; bounds stand before it."""
Int = Annotated[int, WHOLE]
"""A whole number."""
Count = Annotated[int, Field(ge=0), WHOLE]
"""A whole number from 0."""
Positive = Annotated[int, Field(ge=1), WHOLE]
"""A whole number from 1."""
Number = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
"""A number from 0."""
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
"""A number above 0."""
Flag = Annotated[bool, BeforeValidator(_flag)]
"""True or false, and no other word."""


def _scalar(value: Any) -> Any:
    if not isinstance(value, (str, int, float)):
        raise mistake(f"expected text, a number, true or false, got {describe(value)}", kind="scalar")
    return value


Scalar = Annotated[Any, AfterValidator(_scalar), shape("string", "number", "boolean")]
"""Text, a number, true or false, kept as it is."""

_DURATION = re.compile(r"(\d{1,9})(s|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _duration(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise mistake(f"expected a duration, got {describe(value)}", "write a unit: 45s, 30m, 12h, 14d or 2w")
    return value


Duration = Annotated[
    Word,
    Format(_DURATION.pattern, "a duration", "45s, 30m, 12h, 14d or 2w"),
    BeforeValidator(_duration),
]
"""A duration such as ``45s``, ``30m``, ``12h``, ``14d``, ``2w``; ``duration_seconds`` reads it."""


def duration_seconds(duration: str) -> int:
    """Return the seconds of a ``Duration``.

    >>> duration_seconds("14d")
    1209600
    """
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ValueError(f"not a duration: {duration!r}")
    return int(found[1]) * _SECONDS[found[2]]


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWNED_VARIABLES = ("DAGSTER_PIPES_", "DAGSTER_SLURM_")


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise mistake(f"{name!r} can't be the name of an environment variable", "use letters, digits and _")
    if name.startswith(_OWNED_VARIABLES):
        raise mistake(f"`{name}` is set by dagster-slurm-components itself", "choose another name")
    return name


Variable = Annotated[
    str,
    AfterValidator(_variable),
    shape("string", pattern=f"(?!{'|'.join(_OWNED_VARIABLES)}){_VARIABLE.pattern}"),
]
Env = dict[Variable, Text]
"""Environment variables by name."""
