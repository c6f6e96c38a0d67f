"""The base of all models, and the errors that their validators raise."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self

from dagster_slurm_components.spec.place import KEY, KeyPath
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.templates import is_template

UNRENDERED = "unrendered"
"""Validation context of trees whose templates nobody has rendered yet."""
UNTYPED = "untyped"
"""Validation context of parts of scripts: a lower layer may name the ``type`` of a launcher or environment."""
_WAITING = "waiting"
ModelT = TypeVar("ModelT", bound="Model")


def mistake(message: str, hint: str | None = None, kind: str = "wrong") -> PydanticCustomError:
    """Return the error that a validator raises: a message, and what to write instead."""
    # Braces would be read as placeholders of pydantic's message template.
    context = {"message": message, "hint": hint} if hint else {"message": message}
    return PydanticCustomError(kind, "{message}", context)


def waiting() -> PydanticCustomError:
    """Return what stands for no mistake: something can't be made before a template in it is rendered."""
    return mistake("waits for a template", kind=_WAITING)


def details(error: PydanticCustomError, path: KeyPath, value: Any) -> InitErrorDetails:
    """Return an error with the place of the value that it is about."""
    return InitErrorDetails(type=error, loc=path, input=value)


def unknown_key(key: object, choices: Iterable[str], value: Any) -> InitErrorDetails:
    """Return the error for a key that nobody knows."""
    wrong = mistake(f"unknown key `{key}`", did_you_mean(key, choices), "unknown_key")
    return details(wrong, (str(key), KEY), value)


def kept(error: Any) -> InitErrorDetails:
    """Turn one of pydantic's reported errors back into one that can be raised again."""
    context = {key: value for key, value in (error.get("ctx") or {}).items() if key != "error"}
    context.setdefault("message", error["msg"])
    again = PydanticCustomError(error["type"], "{message}", context)
    return details(again, error["loc"], error["input"])


def option(description: str, *examples: Any, default: Any = None) -> Any:
    """Return a field that may be left out; description and examples are what editors and ``dg`` show of it."""
    return Field(default=default, description=description, examples=list(examples))


def required(description: str, *examples: Any) -> Any:
    """Return a field that must be written."""
    return Field(description=description, examples=list(examples))


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
    def _validate(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        errors = list(cls._exclusive_errors(data))
        try:
            model = handler(data)
        except ValidationError as exc:
            errors += [cls._reworded(error) for error in exc.errors(include_url=False)]
        else:
            if not errors:
                return model
        if info.context is UNRENDERED:
            return cls._beside_templates(data, errors, handler)
        raise ValidationError.from_exception_data(cls.__name__, errors)

    @classmethod
    def _beside_templates(
        cls, data: Any, errors: list[InitErrorDetails], handler: ModelWrapValidatorHandler[Self]
    ) -> Self:
        """Leave out the templates that a field refuses, unless something beside them is wrong.

        A field that must be there can't be left out: then the whole model waits, and the one around it leaves it out.
        """
        places = [e["loc"] if _kind(e) == _WAITING else template_at(data, e["loc"]) for e in errors]
        wrong = [error for error, path in zip(errors, places, strict=True) if path is None]
        paths = {path for path in places if path is not None}
        if not wrong and () not in paths:
            try:
                return handler(_without(data, paths))
            except ValidationError as exc:
                again = [cls._reworded(error) for error in exc.errors(include_url=False)]
                wrong = [error for error in again if _kind(error) not in ("missing", _WAITING)]
        raise ValidationError.from_exception_data(cls.__name__, wrong or [details(waiting(), (), data)])

    @classmethod
    def _exclusive_errors(cls, data: Any) -> Iterable[InitErrorDetails]:
        if not isinstance(data, Mapping):
            return
        for group in cls.one_of:
            written = [key for key in data if key in group and data[key] is not None]
            if len(written) > 1:
                message = f"`{written[1]}` and `{written[0]}` exclude each other"
                error = mistake(message, "keep one of them", "exclusive")
                yield details(error, (written[1],), data[written[1]])
        for group in cls.needs_one_of:
            if all(data.get(key) is None for key in group):
                names = " or ".join(f"`{key}`" for key in group)
                yield details(mistake(f"{names} is missing", kind="missing_one"), (), data)

    @classmethod
    def _reworded(cls, error: Any) -> InitErrorDetails:
        """Keep an error as it is, save for an unknown key of this model."""
        key = str(error["loc"][0]) if error["loc"] else ""
        if error["type"] != "extra_forbidden" or len(error["loc"]) > 1:
            return kept(error)
        if key in cls.refused:
            refusal = mistake(f"`{key}` can't be set here: {cls.refused[key]}", kind="refused_key")
            return details(refusal, (key, KEY), error["input"])
        return unknown_key(key, cls.model_fields, error["input"])

    def model_post_init(self, context: Any) -> None:
        """Count a ``type`` as set, for it names the model."""
        if "type" in vars(self):
            self.model_fields_set.add("type")

    def explicit(self) -> dict[str, Any]:
        """Return what was set, as a raw tree without the defaults: what a layer holds."""
        return self.model_dump(exclude_unset=True)


def _kind(error: InitErrorDetails) -> str:
    return error["type"] if isinstance(error["type"], str) else error["type"].type


def validate_unrendered(model: type[ModelT], data: Any) -> ModelT | None:
    """Validate a raw tree; what a template stands for can't be wrong before it is rendered.

    A template that a field would refuse is left out, so that the field has its default; one that a text field takes
    stays. A ValidationError says that something beside the templates is wrong. Without a model (None) nothing is, but
    a field that has no default waits for its template.
    """
    try:
        return model.model_validate(data, context=UNRENDERED)
    except ValidationError as exc:
        if [error["type"] for error in exc.errors(include_url=False)] == [_WAITING]:
            return None
        raise


def template_at(data: Any, path: KeyPath) -> KeyPath | None:
    """Return the path of the template at or above ``path``, if there is one."""
    if path and path[-1] == KEY:  # the key is wrong, whatever stands behind it
        path = path[:-2]
    for depth, part in enumerate((*path, None)):
        if is_template(data):
            return path[:depth]
        try:
            data = data[part]
        except (LookupError, TypeError):
            return None
    return None


def _without(data: Any, paths: set[KeyPath], here: KeyPath = ()) -> Any:
    """Return a copy of the tree without some nodes."""
    if isinstance(data, Mapping):
        items = {key: (*here, key) for key in data}
        return {key: _without(data[key], paths, path) for key, path in items.items() if path not in paths}
    if isinstance(data, (list, tuple)):
        places = [(value, (*here, index)) for index, value in enumerate(data)]
        return [_without(value, paths, path) for value, path in places if path not in paths]
    return data
