"""The base of all models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails
from typing_extensions import Self

from dagster_slurm_components.spec.mistakes import kept, mistake
from dagster_slurm_components.spec.problems import did_you_mean


def option(description: str, *examples: Any, default: Any = None) -> Any:
    """Return a field that may be left out; description and examples are what editors and ``dg`` show of it."""
    return Field(default=default, description=description, examples=list(examples))


class Model(BaseModel):
    """A frozen model that knows its neighbours' names: an unknown key says what was probably meant.

    Attributes:
        one_of: Groups of keys of which at most one may be written.
        needs_one_of: Groups of keys of which one must be written.
        refused: Keys that a user may expect here, and why they are not theirs to set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    one_of: ClassVar[tuple[tuple[str, ...], ...]] = ()
    needs_one_of: ClassVar[tuple[tuple[str, ...], ...]] = ()
    refused: ClassVar[Mapping[str, str]] = {}

    def __hash__(self) -> int:
        """Let pydantic (2.13) share a default among all models instead of copying it: frozen, it is never changed."""
        return hash((type(self), self.model_dump_json()))

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        errors = list(cls._exclusive_errors(data))
        try:
            model = handler(data)
        except ValidationError as exc:
            errors += [cls._reworded(error) for error in exc.errors(include_url=False)]
        else:
            if not errors:
                return model
        raise ValidationError.from_exception_data(cls.__name__, errors)

    @classmethod
    def _exclusive_errors(cls, data: Any) -> Iterable[InitErrorDetails]:
        if not isinstance(data, Mapping):
            return
        for group in cls.one_of:
            written = [key for key in data if key in group and data[key] is not None]
            if len(written) > 1:
                message = f"`{written[1]}` and `{written[0]}` exclude each other"
                error = mistake(message, "keep one of them", "exclusive")
                yield InitErrorDetails(type=error, loc=(written[1],), input=data[written[1]])
        for group in cls.needs_one_of:
            if all(data.get(key) is None for key in group):
                names = " or ".join(f"`{key}`" for key in group)
                error = mistake(f"{names} is missing", kind="missing_one")
                yield InitErrorDetails(type=error, loc=(), input=data)

    @classmethod
    def _reworded(cls, error: Any) -> InitErrorDetails:
        """Keep an error as it is, save for an unknown key of this model."""
        kind, loc = error["type"], error["loc"]
        if kind == "extra_forbidden" and len(loc) == 1:
            key = str(loc[0])
            if key in cls.refused:
                message = f"`{key}` can't be set here: {cls.refused[key]}"
                return InitErrorDetails(
                    type=mistake(message, kind="refused_key"), loc=(key, "[key]"), input=error["input"]
                )
            message = f"unknown key `{key}`"
            wrong = mistake(message, did_you_mean(key, cls.model_fields), "unknown_key")
            return InitErrorDetails(type=wrong, loc=(key, "[key]"), input=error["input"])
        return kept(error)

    def explicit(self) -> dict[str, Any]:
        """Return what was set, as a raw tree without the defaults: what a layer holds.

        Fields named ``type`` are always part of it, for they say which model the tree is of.
        """
        tree: dict[str, Any] = {}
        for name in type(self).model_fields:
            if name in self.model_fields_set or name == "type":
                tree[name] = _explicit(getattr(self, name))
        return {**tree, **_explicit(self.model_extra or {})}


def _explicit(value: Any) -> Any:
    if isinstance(value, Model):
        return value.explicit()
    if isinstance(value, Mapping):
        return {key: _explicit(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_explicit(item) for item in value]
    return value
