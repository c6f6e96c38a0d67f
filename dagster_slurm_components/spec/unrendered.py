"""Validation of trees whose templates nobody has rendered yet, as ``dg-slurm check`` sees them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dagster_slurm_components.spec.base import UNRENDERED, kept
from dagster_slurm_components.spec.place import KEY, Path
from dagster_slurm_components.spec.templates import is_template

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate_unrendered(model: type[ModelT], data: Any) -> ModelT | None:
    """Validate a raw tree; what a template stands for can't be wrong before it is rendered.

    A template that a field would refuse is left out, so that the field has its default; one that a text field takes
    stays. Without a model (None) nothing is wrong, but a field that has no default waits for its template.

    Raises:
        ValidationError: Something beside the templates is wrong.
    """
    removed: set[Path] = set()
    while True:
        try:
            return model.model_validate(_without(data, removed), context=UNRENDERED)
        except ValidationError as exc:
            errors: list[Any] = [
                {**error, "loc": _original(error["loc"], removed)} for error in exc.errors(include_url=False)
            ]
            # A field that waits for its template and must be there takes the mapping around it along.
            paths = {error["loc"][:-1] for error in errors if error["loc"] in removed}
            others = [error for error in errors if error["loc"] not in removed]
            opaque = {error["loc"]: template_at(data, error["loc"]) for error in others}
            wrong = [kept(error) for error in others if opaque[error["loc"]] is None]
            if wrong:
                raise ValidationError.from_exception_data(model.__name__, wrong) from None
            paths |= {path for path in opaque.values() if path is not None}
            if () in paths:
                return None
            removed |= paths


def _original(path: Path, removed: set[Path]) -> Path:
    """Return what a path of the tree without some nodes is in the whole tree: list items move up there."""
    original: Path = ()
    for part in path:
        if isinstance(part, int):
            left = part
            for index in itertools.count():
                left -= (*original, index) not in removed
                if left < 0:
                    original = (*original, index)
                    break
        else:
            original = (*original, part)
    return original


def template_at(data: Any, path: Path) -> Path | None:
    """Return the path of the template at or above ``path``, if there is one."""
    if path and path[-1] == KEY:  # the key is wrong, whatever stands behind it
        path = path[:-2]
    for depth, part in enumerate((*path, None)):
        if is_template(data):
            return path[:depth]
        inside = part in data if isinstance(data, Mapping) else False
        if isinstance(data, (list, tuple)) and isinstance(part, int):
            inside = part < len(data)
        if inside:
            data = data[part]
        else:
            return None
    return None


def _without(data: Any, paths: set[Path], here: Path = ()) -> Any:
    """Return a copy of the tree without some nodes."""
    if not paths:
        return data
    if isinstance(data, Mapping):
        return {
            key: _without(value, paths, (*here, key))
            for key, value in data.items()
            if (*here, key) not in paths
        }
    if isinstance(data, (list, tuple)):
        return [
            _without(value, paths, (*here, index))
            for index, value in enumerate(data)
            if (*here, index) not in paths
        ]
    return data
