"""JSON Schemas (draft 2020-12) of the files that users write, made from the models.

They serve editors and commit hooks: an unknown key, a wrong word or a number out of bounds is marked while it is typed;
a template passes everywhere. What no JSON Schema can say is left to ``dg-slurm check``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dagster_slurm_components.spec.base import TEMPLATE, Model
from dagster_slurm_components.spec.component import COMPONENT_TYPE, ComponentAttributes
from dagster_slurm_components.spec.defs_file import DefsFile
from dagster_slurm_components.spec.environments import ENVIRONMENTS, EnvironmentSpec
from dagster_slurm_components.spec.profile import DefaultEnvironment, Profile, ProfileEnvironment
from dagster_slurm_components.spec.script import DEFAULTABLE, OVERRIDABLE, Script
from dagster_slurm_components.spec.site import Site

Json = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TITLES = {
    "defs": "A defs.yaml of Dagster, with the attributes of SlurmScriptComponent checked",
    "script": "One script of SlurmScriptComponent, in a file of its own",
    "profile": "A profile: one deployment target",
    "site": "Facts about one HPC centre",
}


def schemas() -> dict[str, str]:
    """Return the text of each schema by its file name."""
    made = {"defs": _defs(), "script": _script(), "profile": _of(Profile), "site": _of(Site)}
    return {f"{name}.schema.json": _text(name, schema) for name, schema in made.items()}


def _text(name: str, schema: Json) -> str:
    head = {
        "$schema": DIALECT,
        "$id": f"urn:dagster-slurm-components:{name}",
        "title": _TITLES[name],
    }
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"


def _of(model: type[Model]) -> Json:
    """Return a model's schema, as strict as the model and open to templates."""
    raw = model.model_json_schema()
    definitions = raw.pop("$defs", {})
    known = {each.__name__: each for each in _all_models()}
    result: Json = {}
    for name, definition in sorted(definitions.items()):
        result[name] = _with_choices(known.get(name), _open(definition), definitions)
    root = _with_choices(model, {**_open(raw), "type": "object"}, definitions)
    root.pop("pattern", None)
    return {**root, "$defs": result} if result else root


def _script() -> Json:
    script = _of(Script)
    script["properties"]["profiles"]["additionalProperties"] = {"$ref": "#/$defs/Override"}
    script["$defs"]["Override"] = _part(OVERRIDABLE, "#", "What is different in one profile.")
    return script


def _defs() -> Json:
    """Return the schema of Dagster's own file; components of other types pass as they are."""
    script = _script()
    definitions = script.pop("$defs")
    definitions["Script"] = {**script, "type": ["object", "string"], "pattern": TEMPLATE}
    definitions["Override"] = _part(OVERRIDABLE, "#/$defs/Script", "What is different in one profile.")
    definitions["Defaults"] = _part(DEFAULTABLE, "#/$defs/Script", "What all scripts have in common.")
    attributes = _of(ComponentAttributes)
    fields = attributes["properties"]
    fields["defaults"] = {"$ref": "#/$defs/Defaults"}
    scripts = {"type": "array", "items": {"$ref": "#/$defs/Script"}}
    fields["scripts"] = {**scripts, "description": fields["scripts"]["description"]}
    file = _of(DefsFile)
    definitions.update(file.pop("$defs"))
    file["properties"]["attributes"] = {**attributes, "type": ["object", "null"]}
    kind = {
        "type": "string",
        "description": "Type of the component.",
        "examples": [COMPONENT_TYPE],
        "if": {"pattern": rf"^{COMPONENT_TYPE.partition('.')[0]}\."},
        "then": {"enum": [COMPONENT_TYPE]},
    }
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": kind},
        "if": {"required": ["type"], "properties": {"type": {"const": COMPONENT_TYPE}}},
        "then": {key: file[key] for key in ("properties", "additionalProperties")},
        "$defs": dict(sorted(definitions.items())),
    }


def _part(fields: Iterable[str], script: str, description: str) -> Json:
    """Return the schema of a part of a script, whose own schema stands at the pointer ``script``."""
    return {
        "type": ["object", "string"],
        "pattern": TEMPLATE,
        "description": description,
        "additionalProperties": False,
        "properties": {name: {"$ref": f"{script}/properties/{name}"} for name in fields},
        "allOf": [{"not": _both("payload", "command")}],
    }


def _with_choices(model: type[Model] | None, schema: Json, definitions: Mapping[str, Any]) -> Json:
    """Add to a model's schema what pydantic doesn't know of it."""
    if model is None:
        return schema
    if issubclass(model, DefaultEnvironment):
        schema = _default_environment(schema, definitions)
    pairs = [
        (group[i], group[j])
        for group in model.one_of
        for i in range(len(group))
        for j in range(i + 1, len(group))
    ]
    if pairs:
        schema["allOf"] = [*schema.get("allOf", []), *({"not": _both(*pair)} for pair in pairs)]
    return schema


def _both(one: str, other: str) -> Json:
    written = {"not": {"type": "null"}}
    return {"required": [one, other], "properties": {one: written, other: written}}


def _default_environment(schema: Json, definitions: Mapping[str, Any]) -> Json:
    """Return the schema of a default environment: a dispatch on ``type`` in which ``build`` may stand too."""
    own = schema.get("properties", {})
    branches = []
    for name, model in ENVIRONMENTS.items():
        raw = definitions.get(model.__name__) or model.model_json_schema()
        fields = {**own, **_open(raw)["properties"]}
        branches.append(
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"properties": fields, "additionalProperties": False},
            }
        )
    common = {field: True for field in EnvironmentSpec.model_fields if field != "type"}
    return {
        "type": ["object", "string"],
        "pattern": TEMPLATE,
        "description": schema["description"],
        "properties": {**own, "type": {"enum": list(ENVIRONMENTS), "description": "Which environment."}},
        "allOf": branches,
        "if": {"not": {"required": ["type"]}},
        "then": {"properties": {**dict.fromkeys(own, True), **common}, "additionalProperties": False},
    }


def _all_models() -> Iterable[type[Model]]:
    waiting: list[type[Model]] = [Model, ProfileEnvironment]
    while waiting:
        model = waiting.pop()
        yield model
        waiting += model.__subclasses__()


def _open(schema: Any) -> Any:
    """Return a schema of pydantic's, made short, and open to templates wherever something else than text stands."""
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    short = _named(_nullable(schema))
    known = {key: _open_part(key, value) for key, value in short.items() if key != "title"}
    if known.get("default", ...) is None:
        del known["default"]
    if "description" in known:
        known["description"] = known["description"].replace("``", "`")
    if "enum" in known:
        return _enum(known)
    types = known.get("type")
    names = types if isinstance(types, list) else [types]
    if not {"string"}.intersection(names) and {"object", "array"}.intersection(names):
        known = {**known, "type": [*names, "string"], "pattern": TEMPLATE}
    return known


def _open_part(key: str, value: Any) -> Any:
    if key in ("properties", "$defs"):
        return {name: _open(item) for name, item in value.items()}
    if key == "default":
        return _without_nulls(value)
    return value if key in ("if", "examples", "propertyNames", "required", "enum") else _open(value)


def _named(schema: Json) -> Json:
    """Refuse keys that don't match the pattern of keys, where pydantic lets them pass."""
    if "patternProperties" not in schema:
        return schema
    rest = {key: value for key, value in schema.items() if key != "patternProperties"}
    ((pattern, values),) = schema["patternProperties"].items()
    return {**rest, "propertyNames": {"pattern": pattern}, "additionalProperties": values}


def _nullable(schema: Json) -> Json:
    """Write ``X or null`` without a union, whose errors no one can read."""
    members = schema.get("anyOf", [])
    if len(members) != 2 or members[1] != {"type": "null"}:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if "enum" in members[0]:
        return {**rest, "enum": [*members[0]["enum"], None]}
    if "type" not in members[0]:
        return schema
    types = members[0]["type"]
    return {**members[0], **rest, "type": [*(types if isinstance(types, list) else [types]), "null"]}


def _enum(schema: Json) -> Json:
    """Let a template pass beside some words."""
    rest = {key: value for key, value in schema.items() if key not in ("enum", "type", "anyOf")}
    return {**rest, "anyOf": [{"enum": schema["enum"]}, {"type": "string", "pattern": TEMPLATE}]}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
