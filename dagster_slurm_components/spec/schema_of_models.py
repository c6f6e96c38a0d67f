"""What pydantic makes of models, made short and strict, and open to templates."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from pydantic.json_schema import CoreRef, GenerateJsonSchema
from pydantic_core import core_schema as core

from dagster_slurm_components.spec.base import TEMPLATE, or_template
from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.registry import Registry

Json = dict[str, Any]
_DIGITS = {0: "[0-9]+", 1: "0*[1-9][0-9]*"}


def schemas_of(*models: type[Model]) -> Json:
    """Return the schemas of models, and of those that they are made of, by name."""
    _, made = _Strict().generate_definitions([(model, "validation", _shared(model)) for model in models])
    return {str(name): schema for name, schema in made.items()}


def exclusions(model: type[Model]) -> list[Json]:
    """Return the schemas that refuse mappings with two keys which exclude each other."""
    written = {"not": {"type": "null"}}
    pairs = [pair for group in model.one_of for pair in combinations(group, 2)]
    return [{"not": {"required": [*pair], "properties": dict.fromkeys(pair, written)}} for pair in pairs]


def named_by_type(what: str, branches: Mapping[str, Any], unnamed: Iterable[str] | None) -> Json:
    """Return a dispatch on ``type`` by if and then, so that an error speaks of the chosen type only.

    ``branches`` are the schemas by type; ``unnamed`` the keys of a mapping without a ``type``, which a lower layer may
    name: None if there must be one.
    """
    names = ", ".join(f"`{name}`" for name in branches)
    told = {"description": f"Which {what}: {names}.", "examples": [*branches][:1]}
    made: Json = {
        "type": ["object", "string"],
        "pattern": TEMPLATE,
        "properties": {"type": {"anyOf": _words(list(branches)), **told}},
        "allOf": [
            {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": branch}
            for name, branch in branches.items()
        ],
    }
    if unnamed is None:
        return {**made, "required": ["type"]}
    fields = {"properties": dict.fromkeys(unnamed, True), "additionalProperties": False}
    return {**made, "if": {"not": {"required": ["type"]}}, "then": fields}


def _words(words: list[Any]) -> list[Json]:
    return [{"enum": words}, {"type": "string", "pattern": TEMPLATE}]


def _shared(model: type[Model]) -> Any:
    """Return a model's core schema under the name by which pydantic shares it among all that refer to it."""
    name = f"{model.__module__}.{model.__qualname__}:{id(model)}"
    return {**model.__pydantic_core_schema__, "ref": name}


def _open(made: Json) -> Json:
    """Let a template stand in the place of a mapping or a list."""
    return {**made, "type": [made["type"], "string"], "pattern": TEMPLATE}


class _Strict(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def encode_default(self, dft: Any) -> Any:
        return _without_nulls(super().encode_default(dft))

    def default_schema(self, schema: core.WithDefaultSchema) -> Json:
        made = super().default_schema(schema)
        return {key: value for key, value in made.items() if (key, value) != ("default", None)}

    def bool_schema(self, schema: core.BoolSchema) -> Json:
        pattern = or_template(r"\s*(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*")
        return {"type": ["boolean", "string"], "pattern": pattern}

    def int_schema(self, schema: core.IntSchema) -> Json:
        least, most = schema.get("ge"), schema.get("le")
        digits = "[+-]?[0-9]+" if least is None else "[+]?" + _DIGITS[least]
        if most is not None:
            digits = f"[{least}-{most}]" if most < 10 else f"[0-9]{{1,{len(str(most))}}}"
        return {
            **super().int_schema(schema),
            "type": ["integer", "string"],
            "pattern": or_template(rf"\s*{digits}\s*"),
        }

    def float_schema(self, schema: core.FloatSchema) -> Json:
        pattern = or_template(r"\s*[+]?[0-9]*\.?[0-9]+\s*")
        return {**super().float_schema(schema), "type": ["number", "string"], "pattern": pattern}

    def literal_schema(self, schema: core.LiteralSchema) -> Json:
        made = super().literal_schema(schema)
        return {"anyOf": _words(made["enum"])} if "enum" in made else made

    def list_schema(self, schema: core.ListSchema) -> Json:
        return _open(super().list_schema(schema))

    def dict_schema(self, schema: core.DictSchema) -> Json:
        """Refuse keys that don't match the pattern of keys, where pydantic lets them pass."""
        made = super().dict_schema(schema)
        for pattern, values in made.pop("patternProperties", {}).items():
            made.update(propertyNames={"pattern": pattern}, additionalProperties=values)
        return _open(made)

    def nullable_schema(self, schema: core.NullableSchema) -> Json:
        """Write ``X or null`` without a union, whose errors no one can read."""
        made = self.generate_inner(schema["schema"])
        if "type" in made:
            types = made["type"] if isinstance(made["type"], list) else [made["type"]]
            return {**made, "type": [*types, "null"]}
        if "anyOf" in made and "enum" in made["anyOf"][0]:
            return {"anyOf": _words([*made["anyOf"][0]["enum"], None])}
        return {"if": {"type": "null"}, "else": made}

    def model_schema(self, schema: core.ModelSchema) -> Json:
        made = _open({key: value for key, value in super().model_schema(schema).items() if key != "title"})
        refused = exclusions(schema["cls"])
        return {**made, "allOf": refused} if refused else made

    def function_plain_schema(self, schema: core.PlainValidatorFunctionSchema) -> Json:
        """Give each registry a definition of its own, which refers to those of its models."""
        registry: Registry[Any] | None = schema.get("metadata", {}).get("registry")
        if registry is None:
            return super().function_plain_schema(schema)
        name = registry.what.title().replace(" ", "")
        place, pointer = self.get_cache_defs_ref_schema(CoreRef(f"{name}:0"))
        if place not in self.definitions:
            branches = {kind: self.generate_inner(_shared(model)) for kind, model in registry.items()}
            unnamed = sorted(registry.fields()) if registry.default is not None else None
            self.definitions[place] = named_by_type(registry.what, branches, unnamed)
        return pointer


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
