"""The JSON Schemas as files: one of definitions, and small ones that refer to it.

Whatever needs a schema in one piece cuts it out of the definitions, which is quicker than making it from the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]

DEFINITIONS = "definitions.schema.json"
_REFERENCE = "$ref"
_HERE = "#/$defs/"
_PACKAGE = Path(__file__).parents[1]


def shipped_definitions() -> Json | None:
    """Return the definitions that came with this package, or lie beside its sources."""
    for folder in (_PACKAGE / "_schemas", _PACKAGE.parent / "schemas"):
        if (folder / DEFINITIONS).is_file():
            return dict(json.loads((folder / DEFINITIONS).read_text("utf-8"))["$defs"])
    return None


def reference(name: str, *path: str) -> Json:
    """Return a reference to a definition, or to a part of it."""
    return {_REFERENCE: "/".join((_HERE + name, *path))}


def standalone(part: Json, definitions: Mapping[str, Any]) -> Json:
    """Return a part of a schema with those of the definitions that it needs."""
    needed: Json = {}
    waiting = [*_references(part)]
    while waiting:
        name = waiting.pop().removeprefix(_HERE).partition("/")[0]
        if name not in needed:
            needed[name] = definitions[name]
            waiting += _references(needed[name])
    return {**part, "$defs": dict(sorted(needed.items()))}


def inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a part of a schema with what its references point at in their place."""
    if isinstance(part, list):
        return [inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    rest = {key: inlined(value, definitions) for key, value in part.items() if key != _REFERENCE}
    if not isinstance(part.get(_REFERENCE), str):
        return {**rest, **({_REFERENCE: part[_REFERENCE]} if _REFERENCE in part else {})}
    target: Any = definitions
    for step in part[_REFERENCE].removeprefix(_HERE).split("/"):
        target = target[step]
    return {**inlined(target, definitions), **rest}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get(_REFERENCE), str):
            yield schema[_REFERENCE]
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
