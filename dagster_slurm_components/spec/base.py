"""The base of all models, and the scalar types of the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema
from typing_extensions import Self

from dagster_slurm_components.spec.problems import describe, did_you_mean
from dagster_slurm_components.spec.source import AmbiguousInt


def mistake(message: str, hint: str | None = None, kind: str = "wrong") -> PydanticCustomError:
    """Return the error that a validator raises: a message, and what to write instead."""
    # Braces would be read as placeholders of pydantic's message template.
    context = {"message": message, "hint": hint} if hint else {"message": message}
    return PydanticCustomError(kind, "{message}", context)


def kept(error: Any) -> InitErrorDetails:
    """Turn one of pydantic's reported errors back into one that can be raised again."""
    context = {key: value for key, value in (error.get("ctx") or {}).items() if key != "error"}
    context.setdefault("message", error["msg"])
    again = PydanticCustomError(error["type"], "{message}", context)
    return InitErrorDetails(type=again, loc=error["loc"], input=error["input"])


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


IN_QUOTES = "write it in quotes"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def _text(value: Any) -> Any:
    """Read text; a plain number is text too, unless its spelling would be lost."""
    if isinstance(value, bool):
        raise mistake(
            f"expected text, got {describe(value)} (YAML reads on, off, yes, no, true and false so)",
            IN_QUOTES,
            "text",
        )
    if isinstance(value, AmbiguousInt):
        raise mistake(f"expected text, got the number {int(value)} (YAML reads {value.text} so)", IN_QUOTES)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise mistake(f"expected text, got {describe(value)}", IN_QUOTES, "text")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise mistake("a NUL character can't be part of an argument or a variable")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise mistake("the text can't be written as UTF-8") from None
    return value


def _one_line(value: str) -> str:
    if not value.strip():
        raise mistake("expected text, got nothing")
    if _CONTROL.search(value):
        raise mistake("expected one line without control characters")
    return _without_nul(value)


def _whole_number(value: Any) -> Any:
    """Read a whole number; ``"4"`` is one too, for rendered templates are text."""
    if isinstance(value, bool):
        raise mistake(f"expected a whole number, got {describe(value)}", kind="whole_number")
    if isinstance(value, AmbiguousInt):
        raise mistake(
            f"{value.text} is {int(value)} to this YAML parser and something else to others",
            f"write {int(value)}",
        )
    if isinstance(value, (float, str)):
        plain = isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value)
        if plain or (isinstance(value, float) and value.is_integer()):
            return int(value)
        hint = None
        if isinstance(value, str) and re.fullmatch(r"[0-9.]+[eE][0-9]{1,2}", value):
            hint = f"write {int(float(value))}"
        raise mistake(f"expected a whole number, got {describe(value)}", hint, "whole_number")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, (bool, AmbiguousInt)):
        raise mistake(f"expected a number, got {describe(value)}", kind="number")
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise mistake(f"expected true or false, got {describe(value)}", kind="flag")
    return value


TEMPLATE = r"\{\{[\s\S]*\}\}|\{%[\s\S]*%\}"
"""Pattern of text that holds a template; JSON Schemas let it pass everywhere."""


UNRENDERED = "unrendered"
"""Validation context of trees whose templates nobody has rendered yet."""


def or_template(pattern: str) -> str:
    """Return the JSON Schema pattern of text that matches a pattern whole, or holds a template."""
    return rf"^(?:{pattern})$|{TEMPLATE}".replace(r"\d", "[0-9]")


def shape(*types: str, pattern: str | None = None, **bounds: Any) -> WithJsonSchema:
    """Return what a type looks like in a JSON Schema, where ``pattern`` binds text and bounds bind numbers."""
    known: dict[str, Any] = {"type": list(types) if len(types) > 1 else types[0], **bounds}
    if pattern is not None:
        known["pattern"] = or_template(pattern)
    return WithJsonSchema(known)


class Format:
    """Annotates text with the pattern that it matches whole.

    Args:
        pattern: The pattern, as Python and ECMAScript read it alike.
        what: What the text is, for an error.
        example: What to write.
        minimum: The least of plain numbers; without it a plain number is not one of these.
        keeps_templates: A template that nobody has rendered yet stays. For fields that must be there; others are
            better unset as long as nobody knows their value.
    """

    def __init__(
        self,
        pattern: str,
        what: str,
        example: str,
        *,
        minimum: int | None = None,
        keeps_templates: bool = False,
    ) -> None:
        self.pattern = pattern
        self.what = what
        self.example = example
        self.minimum = minimum
        self.keeps_templates = keeps_templates

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the text after everything else."""
        compiled = re.compile(self.pattern, re.ASCII)

        def check(value: str, info: ValidationInfo) -> str:
            waits = self.keeps_templates and info.context is UNRENDERED and "{{" in value
            if not compiled.fullmatch(value) and not waits:
                raise mistake(f"{value!r} is not {self.what}", f"write one like {self.example}", "format")
            return value

        return core_schema.with_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Write the pattern down."""
        if self.minimum is None:
            return {"type": "string", "pattern": or_template(self.pattern)}
        return {"type": ["string", "integer"], "pattern": or_template(self.pattern), "minimum": self.minimum}


class OneMistake:
    """Annotates a union: whatever none of its members takes is one mistake, not one for each member.

    Args:
        what: What is expected, for the error.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take the members' errors together."""

        def check(value: Any, members: ValidatorFunctionWrapHandler) -> Any:
            try:
                return members(value)
            except ValidationError:
                raise mistake(f"expected {self.what}, got {describe(value)}", kind="union") from None

        return core_schema.no_info_wrap_validator_function(check, handler(source))


LINE = r".*\S.*"
"""Pattern of one line that is not empty, short enough to be read in an editor's message."""

Text = Annotated[str, BeforeValidator(_text), AfterValidator(_without_nul), shape("string", "integer")]
"""Any text, of many lines too."""
Word = Annotated[
    str, BeforeValidator(_text), AfterValidator(_one_line), shape("string", "integer", pattern=LINE)
]
"""One line of text that is not empty and has no control characters."""
Int = Annotated[int, BeforeValidator(_whole_number), shape("integer", "string", pattern=r"\s*[+-]?[0-9]+\s*")]
"""A whole number."""
Count = Annotated[
    int,
    BeforeValidator(_whole_number),
    Field(ge=0),
    shape("integer", "string", pattern=r"\s*[+]?[0-9]+\s*", minimum=0),
]
"""A whole number from 0."""
Positive = Annotated[
    int,
    BeforeValidator(_whole_number),
    Field(ge=1),
    shape("integer", "string", pattern=r"\s*[+]?0*[1-9][0-9]*\s*", minimum=1),
]
"""A whole number from 1."""
Number = Annotated[
    float,
    BeforeValidator(_number),
    Field(ge=0, allow_inf_nan=False),
    shape("number", "string", pattern=r"\s*[+]?[0-9]*\.?[0-9]+\s*", minimum=0),
]
"""A number from 0."""
AboveZero = Annotated[
    float,
    BeforeValidator(_number),
    Field(gt=0, allow_inf_nan=False),
    shape("number", "string", pattern=r"\s*[+]?[0-9]*\.?[0-9]+\s*", exclusiveMinimum=0),
]
"""A number above 0."""
Flag = Annotated[
    bool,
    BeforeValidator(_flag),
    shape("boolean", "string", pattern=r"\s*(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*"),
]
"""True or false, and no other word."""


def _scalar(value: Any) -> Any:
    if not isinstance(value, (str, int, float)):
        raise mistake(f"expected text, a number, true or false, got {describe(value)}", kind="scalar")
    return value


Scalar = Annotated[Any, AfterValidator(_scalar), shape("string", "number", "boolean")]
"""Text, a number, true or false, kept as it is."""

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _duration(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise mistake(f"expected a duration, got {describe(value)}", "write a unit: 45s, 30m, 12h, 14d or 2w")
    return value


def _duration_text(value: str) -> str:
    if not _DURATION.fullmatch(value):
        raise mistake(
            f"expected a duration, got {describe(value)}", "write one like 45s, 30m, 12h, 14d or 2w"
        )
    return value


Duration = Annotated[
    str,
    BeforeValidator(_text),
    BeforeValidator(_duration),
    AfterValidator(_duration_text),
    shape("string", pattern=_DURATION.pattern),
]
"""A duration such as ``45s``, ``30m``, ``12h``, ``14d``, ``2w``; ``duration_seconds`` reads it."""


def duration_seconds(duration: str) -> int:
    """Return the seconds of a ``Duration``.

    >>> duration_seconds("14d")
    1209600
    """
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ValueError(f"not a duration: {duration!r}")
    return int(found[1]) * _SECONDS[found[2]]


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWNED_VARIABLES = ("DAGSTER_PIPES_", "DAGSTER_SLURM_")


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise mistake(f"{name!r} can't be the name of an environment variable", "use letters, digits and _")
    if name.startswith(_OWNED_VARIABLES):
        raise mistake(f"`{name}` is set by dagster-slurm-components itself", "choose another name")
    return name


Variable = Annotated[
    str,
    AfterValidator(_variable),
    shape("string", pattern=r"(?!DAGSTER_PIPES_|DAGSTER_SLURM_)[A-Za-z_][A-Za-z0-9_]*"),
]
Env = dict[Variable, Text]
"""Environment variables by name."""
