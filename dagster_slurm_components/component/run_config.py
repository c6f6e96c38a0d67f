"""The config of a script's op, in Dagster's types and made from the models: what one run may ask for."""

from collections.abc import Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic.fields import FieldInfo

from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.registry import Registry
from dagster_slurm_components.spec.script import IN_A_RUN, Script


@cache
def run_config() -> dict[str, dg.Field]:
    """Return the fields of the config of all ops of scripts: an unknown key is refused where it is typed.

    Whether a value is right is the models' to say when the step begins: most texts may be numbers too, which no type of
    Dagster's (1.13) takes, and many have a form.
    """
    profile = dg.Field(str, is_required=False, description="Profile to run in, instead of the chosen one.")
    return {"profile": profile, **{name: _field(Script.model_fields[name]) for name in IN_A_RUN}}


def _field(field: FieldInfo) -> dg.Field:
    kind = _type(field.annotation, field.metadata)
    return dg.Field(kind, is_required=False, description=field.description)


def _type(kind: Any, metadata: Sequence[Any] = ()) -> Any:
    """Return Dagster's type for an annotation; ``Any`` for text and what has no type there."""
    if get_origin(kind) is Annotated:
        kind, *metadata = get_args(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    registry = next((each for each in metadata if isinstance(each, Registry)), None)
    if registry is not None:
        return _one_of(registry)
    if origin in (Union, UnionType):
        inner = [_type(each) for each in arguments if each is not NoneType]
        only = inner[0] if len(inner) == 1 else dg.Any
        return dg.Noneable(only) if NoneType in arguments and only is not dg.Any else only
    if origin is Literal and all(isinstance(word, str) for word in arguments):
        # Dagster's errors tell the name: it is what there is to choose from.
        return dg.Enum(" | ".join(arguments), [dg.EnumValue(word) for word in arguments])
    if origin is list:
        return dg.Array(_type(*arguments))
    if isinstance(kind, type) and issubclass(kind, Model):
        return {name: _field(field) for name, field in kind.model_fields.items()}
    plain = origin or kind
    return plain if plain in (int, float, bool, dict) else dg.Any


def _one_of(registry: Registry[Any]) -> dict[str, dg.Field]:
    """Return the type of what is chosen by its ``type``: all fields of all models, as a lower layer may choose."""
    fields: dict[str, dg.Field] = {}
    for model in registry.values():
        for name, field in model.model_fields.items():
            made = _field(field)
            alike = fields.setdefault(name, made).config_type.key == made.config_type.key
            fields[name] = made if alike else dg.Field(dg.Any, is_required=False)
    kinds = _type(Literal[tuple(registry)])
    return {**fields, "type": dg.Field(kinds, is_required=False, description=f"Which {registry.what}.")}
