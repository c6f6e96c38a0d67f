"""One script over the product of lists: a script per cell, each with its own asset keys and variables."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.place import KEY, KeyPath, texts, with_templates
from dagster_slurm_components.spec.problems import Problem, SpecError, did_you_mean

MAX_CELLS = 10_000
_REFERENCE = re.compile(r"\{\{-?\s*matrix\.([A-Za-z_]\w*)\s*-?\}\}", re.ASCII)
_MENTION = re.compile(r"\{\{[^}]*\bmatrix\b[^}]*\}\}")
_Mistake = tuple[KeyPath, str, str | None]
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def expand(script: Layer) -> tuple[Layer, ...]:
    """Return the scripts that a script with a ``matrix`` stands for; one without stands for itself.

    Positions stay those of the one script as written. A text that is one reference and nothing else becomes
    the cell's value with its type; in other text the value is written out. Other templates are left alone.
    A malformed matrix, or a reference to nothing in it, is a SpecError.
    """
    matrix = script.data.get("matrix")
    if matrix is None:
        return (script,)
    rest = {key: value for key, value in script.data.items() if key != "matrix"}
    mistakes = [*_mistakes(matrix)] or [*_bad_references(rest, matrix)]
    if mistakes:
        raise SpecError(Problem.at(script.position, *mistake, "matrix") for mistake in mistakes)
    layers = []
    for values in itertools.product(*matrix.values()):
        cell = dict(zip(matrix, values, strict=True))
        label = ", ".join(f"{name}={value}" for name, value in cell.items())
        data = with_templates(rest, partial(_filled, cell))
        layers.append(replace(script, name=f"{script.name} [{label}]", data=data))
    return tuple(layers)


def _mistakes(matrix: Any) -> Iterator[_Mistake]:
    if not isinstance(matrix, Mapping) or not matrix:
        yield ("matrix",), "expected a mapping of lists", None
        return
    cells = 1
    for name, values in matrix.items():
        path: KeyPath = ("matrix", name)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield (
                (*path, KEY),
                f"{name!r} can't be the name of a matrix variable",
                "use letters, digits and _",
            )
        if not isinstance(values, list) or not values:
            yield path, "expected a list of values", None
            continue
        cells *= len(values)
        for index, value in enumerate(values):
            if value is None or not isinstance(value, (str, int, float)):
                yield (*path, index), "expected text, a number, true or false", None
    if cells > MAX_CELLS:
        yield ("matrix",), f"the matrix has {cells} cells; at most {MAX_CELLS} are allowed", None


def _bad_references(tree: Any, matrix: Mapping[str, Any]) -> Iterator[_Mistake]:
    for text, path in texts(tree):
        for name in _REFERENCE.findall(text):
            if name not in matrix:
                yield path, f"`matrix.{name}` is not in the matrix", did_you_mean(name, list(matrix))
        for mention in _MENTION.findall(_REFERENCE.sub("", text)):
            yield path, f"{mention} is more than a reference", "write only {{ matrix.NAME }}"


def _filled(cell: Mapping[str, Any], text: str, path: KeyPath) -> Any:
    if "matrix" not in text:
        return text
    whole = _REFERENCE.fullmatch(text.strip())
    if whole is not None:
        return cell[whole[1]]
    return _REFERENCE.sub(lambda reference: str(cell[reference[1]]), text)
