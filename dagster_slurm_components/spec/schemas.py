"""JSON Schemas (draft 2020-12) of the files that users write, made from the models, for editors and commit hooks.

A template passes everywhere; what no JSON Schema can say is left to ``dg-slurm check``. One file holds all definitions;
a schema in one piece is cut out of them, which is quicker than making it from the models.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dagster_slurm_components.spec.base import TEMPLATE
from dagster_slurm_components.spec.component import COMPONENT_TYPE, ComponentAttributes, DefsFile
from dagster_slurm_components.spec.environments import ENVIRONMENTS, EnvironmentSpec
from dagster_slurm_components.spec.profile import DefaultEnvironment, Profile, ProfileEnvironment
from dagster_slurm_components.spec.schema_of_models import Json, exclusions, named_by_type, schemas_of
from dagster_slurm_components.spec.script import DEFAULTABLE, OVERRIDABLE, Script
from dagster_slurm_components.spec.site import Site

DEFINITIONS = "definitions.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ROOTS = {
    "defs": (DefsFile, "A defs.yaml of Dagster, with the attributes of SlurmScriptComponent checked"),
    "script": (Script, "One script of SlurmScriptComponent, in a file of its own"),
    "profile": (Profile, "A profile: one deployment target"),
    "site": (Site, "Facts about one HPC centre"),
}
_PACKAGE = Path(__file__).parents[1]
_HERE = "#/$defs/"
_BREAK = r"\n\s*"
_SCALAR = r'(?:"(?:[^"\\\n]|\\.)*"|[\w.-]+)'
_LIST = re.compile(rf"\[{_BREAK}({_SCALAR}(?:,{_BREAK}{_SCALAR})*){_BREAK}\]")
"""A list of scalars over several lines; none of them is inside a string, for strings have no line breaks."""


def schemas() -> dict[str, str]:
    """Return the text of each schema by its file name; each stands alone."""
    made = definitions()
    texts = {}
    for name, (model, title) in _ROOTS.items():
        head = {"$schema": DIALECT, "$id": f"urn:dagster-slurm-components:{name}", "title": title}
        root = standalone({**head, **made[model.__name__], "type": "object"}, made)
        root.pop("pattern", None)
        texts[f"{name}.schema.json"] = _text(root)
    return texts


def schema_files() -> dict[str, str]:
    """Return the texts of the files to ship: the definitions once, and a small file for each schema.

    They have no ``$id``, for a reference to the file beside starts at the place of the file that holds it.
    """
    texts = {DEFINITIONS: _text({"$schema": DIALECT, "$defs": definitions()})}
    for name, (model, title) in _ROOTS.items():
        pointer = DEFINITIONS + reference(model.__name__)["$ref"]
        texts[f"{name}.schema.json"] = _text(
            {"$schema": DIALECT, "title": title, "type": "object", "$ref": pointer}
        )
    return texts


def _text(schema: Json) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    return _LIST.sub(lambda found: f"[{re.sub(_BREAK, ' ', found[1])}]", text) + "\n"


def definitions() -> Json:
    """Return the schemas of all models by name; they refer to each other."""
    text = json.dumps(schemas_of(DefsFile, ComponentAttributes, Script, Profile, Site))
    made: Json = json.loads(text.replace("``", "`"))
    made["Script"]["properties"]["profiles"]["additionalProperties"] = reference("Override")
    made["Override"] = _part(OVERRIDABLE, "What is different in one profile.")
    made["Defaults"] = _part(DEFAULTABLE, "What all scripts have in common.")
    del made["Output"]["required"]  # an override changes a part of one
    attributes = made.pop("ComponentAttributes")
    fields = attributes["properties"]
    fields["scripts"] = {**_told(fields["scripts"]), "type": "array", "items": reference("Script")}
    fields["defaults"] = {**_told(fields["defaults"]), **reference("Defaults")}
    made["DefsFile"] = _defs(made["DefsFile"], attributes)
    for model in (DefaultEnvironment, ProfileEnvironment):
        made[model.__name__] = _default_environment(model, made[model.__name__])
    return dict(sorted(made.items()))


def _defs(file: Json, attributes: Json) -> Json:
    """Return the schema of Dagster's own file; components of other types pass as they are."""
    del attributes["pattern"]  # a template can't stand for all of them
    told = _told(file["properties"]["attributes"])
    file["properties"]["attributes"] = {**attributes, **told, "type": ["object", "null"]}
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
    }


def _told(field: Json) -> Json:
    """Return what a person is told of a field."""
    return {key: field[key] for key in ("description", "examples")}


def _part(fields: Iterable[str], description: str) -> Json:
    """Return the schema of a part of a script."""
    return {
        "type": ["object", "string"],
        "pattern": TEMPLATE,
        "description": description,
        "additionalProperties": False,
        "properties": {name: reference("Script", "properties", name) for name in fields},
        "allOf": exclusions(Script),
    }


def _default_environment(model: type[DefaultEnvironment], made: Json) -> Json:
    """Return the schema of a default environment: a dispatch on ``type`` in which its own fields may stand too."""
    name, own = model.__name__, made.get("properties", {})
    mine = {field: reference(name, "properties", field) for field in own}
    branches = {}
    for kind, environment in ENVIRONMENTS.items():
        theirs = environment.__name__
        fields = {field: reference(theirs, "properties", field) for field in environment.model_fields}
        merged = {"properties": {**mine, **fields}, "additionalProperties": False}
        branches[kind] = merged if own else reference(theirs)
    common = [*own, *(field for field in EnvironmentSpec.model_fields if field != "type")]
    choice = named_by_type("environment", branches, common)
    choice["properties"].update(own)
    return {**choice, "description": made["description"]}


def shipped_definitions() -> Json | None:
    """Return the definitions that came with this package, or lie beside its sources."""
    for folder in (_PACKAGE / "_schemas", _PACKAGE.parent / "schemas"):
        if (folder / DEFINITIONS).is_file():
            return dict(json.loads((folder / DEFINITIONS).read_text("utf-8"))["$defs"])
    return None


def reference(name: str, *path: str) -> Json:
    """Return a reference to a definition, or to a part of it."""
    return {"$ref": "/".join((_HERE + name, *path))}


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


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
