"""The model of ``attributes`` that Dagster's tools see, and its strict JSON Schema."""

from collections.abc import Mapping
from functools import cache, reduce
from importlib.metadata import entry_points
from operator import getitem
from types import NoneType
from typing import Any

from pydantic import GetJsonSchemaHandler, RootModel
from pydantic_core import CoreSchema

from dagster_slurm_components.spec.schemas import definitions, reference, shipped_definitions, standalone

_TEMPLATE = {"title": "Template", "description": "Text with `{{ ... }}` that stands for the value."}
_KINDS = {bool: "boolean", str: "string", NoneType: "null"}
_GROUPS = ("dagster_slurm_components.launchers", "dagster_slurm_components.environments")


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
        own = {key: value for key, value in schema.items() if key != "$defs"}
        return dict(_inlined(own, schema["$defs"], 0))


@cache
def attributes_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``attributes``, with the launchers and environments of other packages.

    Dagster asks for it whenever definitions are loaded, so what is shipped is read: making it takes 0.2 s.
    """
    extended = any(entry_points(group=group) for group in _GROUPS)
    shipped = None if extended else shipped_definitions()
    return made_schema() if shipped is None else _attributes(shipped)


def made_schema() -> dict[str, Any]:
    """Make the JSON Schema of ``attributes`` from the models."""
    return _attributes(definitions())


def _attributes(every: dict[str, Any]) -> dict[str, Any]:
    attributes = every["DefsFile"]["then"]["properties"]["attributes"]
    parts = {name: {"title": name, **_readable(_inlined(part, every, 2))} for name, part in every.items()}
    own = _readable(_inlined({**attributes, "type": "object"}, every, 2))
    return standalone(own, {**parts, "Template": _TEMPLATE})


def _inlined(part: Any, definitions: Mapping[str, Any], steps: int) -> Any:
    """Return a part of the schema with what its references of more than so many steps point at in their place."""
    if isinstance(part, list):
        return [_inlined(item, definitions, steps) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("$ref", "").count("/") > steps:
        target = reduce(getitem, part["$ref"].split("/")[2:], definitions)
        own = {key: value for key, value in part.items() if key != "$ref"}
        return _inlined({**target, **own}, definitions, steps)
    return {key: _inlined(value, definitions, steps) for key, value in part.items()}


def _readable(part: Any) -> Any:
    """Return a part of the schema that says the same, as Dagster's page of a component and its forms (1.13) show it.

    The page finds a definition by the last word of its reference (so longer ones are inlined), shows no title beside a
    list of types, and opens no list or mapping that may be text too: beside those stands a union to be read, which
    takes anything.
    """
    if isinstance(part, list):
        return [*map(_readable, part)]
    if not isinstance(part, dict):
        return part
    made = {key: _readable(value) for key, value in part.items()}
    values, shown = made.get("additionalProperties"), None
    if made.get("if") == {"type": "null"}:
        shown = made["else"]
    elif "$ref" in made.get("items", ()) and made["type"] != "array":
        shown = {"type": "array", "items": made["items"]}
    elif isinstance(values, dict) and "$ref" in values:
        shown = {"type": "object", "properties": dict.fromkeys(made["examples"][0], values)}
    if shown:
        made["anyOf"] = [shown, reference("Template")]
    if isinstance(made.get("type"), list) and (shown or "properties" in made):
        kinds = {key: made.pop(key) for key in ("type", "pattern") if key in made}
        made["allOf"] = [*made.get("allOf", ()), kinds]
    if "enum" in made:
        types = [name for kind, name in _KINDS.items() if kind in map(type, made["enum"])]
        # `dg utils inspect-component` takes no list here (1.13).
        made["type"] = types if len(types) > 1 else types[0]
    for name, field in made.get("properties", {}).items():
        if isinstance(field, dict):
            made["properties"][name] = {"title": name, **field}
    return made
