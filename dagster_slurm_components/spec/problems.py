"""Mistakes in a user's YAML: one per mistake, with its place, its reason and the nearest right word."""

from __future__ import annotations

import difflib
import linecache
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.place import KEY, KeyPath, Locate, Position

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        message: What is wrong, in one sentence without a final stop.
        position: Where it was written, if it was written at all.
        path: Keys and list indices from the root of the document.
        hint: What to write instead.
        kind: A short stable word for programs, such as ``unknown_key``.
        level: ``error``, or ``warning`` for what may well be meant.
    """

    message: str
    position: Position | None = None
    path: KeyPath = ()
    hint: str | None = None
    kind: str = "wrong"
    level: Level = "error"

    @classmethod
    def at(
        cls,
        position_of: Locate,
        path: KeyPath,
        message: str,
        hint: str | None = None,
        kind: str = "wrong",
        *,
        level: Level = "error",
    ) -> Problem:
        """Return the mistake of what is written at a path."""
        return cls(message, position_of(path), path, hint, kind, level)

    def __str__(self) -> str:
        """Render as ``file:line:column: message``, the offending line with a caret, and the hint."""
        lines = [f"{self.position}: {self.message}" if self.position else self.message]
        if self.position and (source := _line(self.position)):
            lines += [f"    {source}", "    " + " " * (self.position.column - 1) + "^"]
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


class SpecError(DagsterSlurmError):
    """A user's YAML has mistakes; all that were found are told at once, in the order given."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def _line(position: Position) -> str:
    """Return the source line at a position, without its line end, or nothing when the file can't be read."""
    linecache.checkcache(position.file)
    return linecache.getline(position.file, position.line).rstrip("\r\n").replace("\t", " ")


_MEANT = {"cpus": "cpus_per_task", "cores": "cpus_per_task", "queue": "partition", "walltime": "time"}
"""Words of other schedulers, and short ones, where the nearest in letters would be a wrong one."""


def nearest(word: object, choices: Iterable[str]) -> str | None:
    """Return the choice that a mistyped word most likely meant, or None."""
    choices = list(choices)
    spelled = str(word).lower().replace("-", "_")
    if _MEANT.get(spelled) in choices:
        return _MEANT[spelled]
    by_spelling = {choice.lower().replace("-", "_"): choice for choice in choices}
    matches = difflib.get_close_matches(spelled, by_spelling, n=1, cutoff=0.6)
    return by_spelling[matches[0]] if matches else None


def did_you_mean(word: object, choices: Iterable[str]) -> str | None:
    """Return ``did you mean `x`?``, or a list of the choices when none is near and they are few."""
    names = sorted(choices)
    guess = nearest(word, names)
    if guess is not None:
        return f"did you mean `{guess}`?"
    return "expected one of " + ", ".join(f"`{name}`" for name in names) if 0 < len(names) <= 30 else None


def problems_of(exc: pydantic.ValidationError, position_of: Locate) -> tuple[Problem, ...]:
    """Turn pydantic's errors into problems, one per mistake."""
    problems = []
    for error in exc.errors(include_url=False):
        path = tuple(error["loc"])
        message, hint = _words(error, path)
        where = path[:-1] if error["type"] == "missing" else path
        problems.append(Problem(message, position_of(where), path, hint, error["type"]))
    return in_order(problems)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return problems in the order of the files' text, each once; those without a place come first."""
    different = {(problem.position, problem.message): problem for problem in problems}
    nowhere = Position("", 0, 0)
    return tuple(sorted(different.values(), key=lambda problem: problem.position or nowhere))


_EXPECTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
"""What an error ending in ``_type`` or ``_parsing`` misses."""


def _words(error: Any, path: KeyPath) -> tuple[str, str | None]:
    """Return message and hint for one pydantic error; our own validators bring theirs."""
    kind, given, context = error["type"], error["input"], error.get("ctx") or {}
    hint, expected = context.get("hint"), _EXPECTED.get(kind.removesuffix("_type").removesuffix("_parsing"))
    if kind == "missing":
        message = f"`{path[-1]}` is missing"
    elif kind == "invalid_key" or (kind == "string_type" and path[-1:] == (KEY,)):
        message, hint = "expected a key that is text, not a number or a boolean", "write the key in quotes"
    elif expected is not None:
        message = f"expected {expected}, got {describe(given)}"
        if path[-2:-1] == ("assets",) and isinstance(given, str):
            hint = f"write `{{key: {given}}}`"
    elif kind == "literal_error":
        message = f"`{given}` is not known here"
        hint = did_you_mean(given, re.findall(r"'([^']*)'", context["expected"]))
    elif kind == "too_short":
        message = f"expected at least {context['min_length']}, got {context['actual_length']}"
    elif kind == "too_long":
        message = f"expected at most {context['max_length']}, got {context['actual_length']}"
    elif kind.startswith(("greater_than", "less_than")):
        bound = error["msg"].removeprefix("Input should be ")
        message = f"expected a number {bound}, got {describe(given)}"
    else:
        message = error["msg"].removeprefix("Value error, ")
    return message, hint


def describe(value: object) -> str:
    """Say what a value is, in YAML's words, shortly."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return f"the text {shown!r}"
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"
