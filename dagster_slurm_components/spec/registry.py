"""Models that a YAML mapping chooses by its ``type``: launchers, environments, hosts, partitions."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, get_args

from pydantic import GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from dagster_slurm_components.spec.model import (
    UNRENDERED,
    UNTYPED,
    Model,
    details,
    mistake,
    unknown_key,
    waiting,
)
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.templates import is_template

Spec = TypeVar("Spec", bound=Model)


class Registry(Mapping[str, "type[Spec]"], Generic[Spec]):
    """Model by type: those shipped here, and those that other packages name as entry points.

    It annotates the fields that hold one of them: ``Annotated[LauncherSpec, LAUNCHERS]``.

    Args:
        what: What a user calls such a thing.
        group: The entry point group, if others may add models; a name in it is a ``type``.
        models: The shipped models.
        default: The type of a mapping that names none; without it a type must be named.
        other: Checks what is no mapping, where a field may hold something else too.
    """

    def __init__(
        self,
        what: str,
        group: str | None,
        models: tuple[type[Spec], ...],
        *,
        default: str | None = None,
        other: Callable[[Any], Any] | None = None,
    ) -> None:
        self.what = what
        self.default = default
        self.other = other
        self._group = group
        # The `type` of a model is a literal of one word.
        self._shipped = {str(get_args(model.model_fields["type"].annotation)[0]): model for model in models}

    @cached_property
    def _models(self) -> dict[str, type[Spec]]:
        points = entry_points(group=self._group) if self._group else ()
        return {**{point.name: point.load() for point in points}, **self._shipped}

    def __getitem__(self, name: str) -> type[Spec]:
        """Return the model of a type; other packages are asked only for types that aren't shipped."""
        return self._shipped[name] if name in self._shipped else self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __hash__(self) -> int:
        """Let annotations hold it, whose unions are sets."""
        return id(self)

    def fields(self) -> frozenset[str]:
        """Return the names of the fields that any of the models has."""
        return frozenset(field for model in self.values() for field in model.model_fields)

    def validate(self, data: Any, context: Any = None) -> Any:
        """Validate a mapping by the model that its ``type`` names; a model is right already."""
        if isinstance(data, Model):
            return data
        if not isinstance(data, Mapping):
            if self.other is not None:
                return self.other(data)
            hint = f"write `{{type: {data}}}`" if isinstance(data, str) and data in self else None
            raise mistake(f"expected a mapping with a `type` for the {self.what}", hint, "mapping")
        if context is UNTYPED and self.default is not None and "type" not in data:
            fields = self.fields()
            unknown = [unknown_key(key, fields, data[key]) for key in data if key not in fields]
            if unknown:
                raise ValidationError.from_exception_data(self.what, unknown)
            return self[self.default]()
        name = data.get("type", self.default)
        if name is None:
            raise mistake(f"the {self.what} has no `type`", did_you_mean("", self), "missing_type")
        if context is UNRENDERED and is_template(name):
            raise waiting()
        if not isinstance(name, str) or name not in self:
            wrong = mistake(f"unknown {self.what} type `{name}`", did_you_mean(name, self), "unknown_type")
            raise ValidationError.from_exception_data(self.what, [details(wrong, ("type",), name)])
        return self[name].model_validate(data, context=context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by the registry, so that an error speaks of the chosen type only; JSON Schemas do so too."""

        def check(value: Any, info: ValidationInfo) -> Any:
            return self.validate(value, info.context)

        return core_schema.with_info_plain_validator_function(
            check,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: (
                    value.model_dump(exclude_unset=info.exclude_unset) if isinstance(value, Model) else value
                ),
                info_arg=True,
            ),
            metadata={"registry": self},
        )
