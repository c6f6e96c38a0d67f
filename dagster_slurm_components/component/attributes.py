"""The model of ``attributes`` that Dagster's tools see, and its strict JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path as FilePath
from typing import Any

from pydantic import GetJsonSchemaHandler, RootModel
from pydantic_core import CoreSchema

SHIPPED = FilePath(__file__).parent / "attributes.schema.json"
"""The schema as a file: Dagster asks for it whenever definitions are loaded, and making it takes 0.1 s.

``dg-slurm schema`` in the source tree renews it.
"""
_GROUPS = ("dagster_slurm_components.launchers", "dagster_slurm_components.environments")
_REFERENCE = "$ref"
_DEFINITIONS = "#/$defs/"


class Attributes(RootModel[dict[Any, Any]]):
    """Takes any mapping, for the component itself reads the file again and tells of mistakes with their lines.

    What Dagster derives from a component's fields is too loose to be of use: each field takes any text.
    """

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the strict schema; ``dg check yaml`` and ``dg utils inspect-component`` use it."""
        return attributes_schema()

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the strict schema as a part of another one, which has no place for our definitions."""
        schema = attributes_schema()
        return dict(_inlined({key: value for key, value in schema.items() if key != "$defs"}, schema))


@cache
def attributes_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``attributes``, with the launchers and environments of other packages."""
    if any(entry_points(group=group) for group in _GROUPS):
        return made_schema()
    return dict(json.loads(SHIPPED.read_text("utf-8")))


def made_schema() -> dict[str, Any]:
    """Make the JSON Schema of ``attributes`` from that of a ``defs.yaml``."""
    from dagster_slurm_components.spec.schemas import schemas  # noqa: PLC0415 -- not needed to load definitions

    whole = json.loads(schemas()["defs.schema.json"])
    attributes: dict[str, Any] = whole["then"]["properties"]["attributes"]
    needed: dict[str, Any] = {}
    waiting = [*_references(attributes)]
    while waiting:
        name = waiting.pop().removeprefix(_DEFINITIONS).partition("/")[0]
        if name not in needed:
            needed[name] = whole["$defs"][name]
            waiting += _references(needed[name])
    return {**attributes, "type": "object", "$defs": dict(sorted(needed.items()))}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get(_REFERENCE), str):
            yield schema[_REFERENCE]
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _inlined(part: Any, root: dict[str, Any]) -> Any:
    """Return a part of a schema with what its references point at in their place."""
    if isinstance(part, list):
        return [_inlined(item, root) for item in part]
    if not isinstance(part, dict):
        return part
    if isinstance(part.get(_REFERENCE), str):
        target: Any = root
        for step in part[_REFERENCE].removeprefix("#/").split("/"):
            target = target[step]
        return _inlined({**target, **{k: v for k, v in part.items() if k != _REFERENCE}}, root)
    return {key: _inlined(value, root) for key, value in part.items()}


def shipped_text() -> str:
    """Return what the shipped file should hold."""
    return json.dumps(made_schema(), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
