"""The scalar types of the vocabulary: each checks a value and writes the same check into its JSON Schema."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import CoreSchema, core_schema

from dagster_slurm_components.spec.model import UNRENDERED, Model, mistake
from dagster_slurm_components.spec.problems import describe
from dagster_slurm_components.spec.source import SpelledInt

TEMPLATE = r"\{\{[\s\S]*\}\}|\{%[\s\S]*%\}"
"""Pattern of text that holds a template; JSON Schemas let it pass everywhere."""
LINE = r".*\S.*"
"""Pattern of one line that is not empty, short enough to be read in an editor's message."""


def or_template(pattern: str) -> str:
    """Return the JSON Schema pattern of text that matches a pattern whole, or holds a template."""
    plain = re.sub(r"\?P<\w+>", "", pattern).replace(r"\d", "[0-9]")
    return rf"^(?:{plain})$|{TEMPLATE}"


def shape(*types: str, pattern: str | None = None, **bounds: Any) -> WithJsonSchema:
    """Return what a type looks like in a JSON Schema, where ``pattern`` binds text and bounds bind numbers."""
    schema: dict[str, Any] = {"type": list(types) if len(types) > 1 else types[0], **bounds}
    if pattern is not None:
        schema["pattern"] = or_template(pattern)
    return WithJsonSchema(schema)


@dataclass(frozen=True)
class Format:
    """Annotates text with the pattern that it matches whole.

    Attributes:
        pattern: The pattern, as Python and ECMAScript read it alike, save for names of groups.
        what: What the text is, for an error.
        example: What to write; ``hint`` says so where an example does not say enough.
        minimum: The least of plain numbers; without it a plain number is not one of these.
        keeps_templates: A template that nobody has rendered yet stays. For fields that must be there; others are
            better unset as long as nobody knows their value.
    """

    pattern: str
    what: str
    example: str = ""
    hint: str | None = None
    minimum: int | None = None
    keeps_templates: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the text after everything else."""
        compiled = re.compile(self.pattern, re.ASCII)

        def check(value: str, info: ValidationInfo) -> str:
            waits = self.keeps_templates and info.context is UNRENDERED and "{{" in value
            if not compiled.fullmatch(value) and not waits:
                hint = self.hint or f"write one like {self.example}"
                raise mistake(f"{value!r} is not {self.what}", hint, "format")
            return value

        return core_schema.with_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Write the pattern down."""
        made = {"type": "string", "pattern": or_template(self.pattern)}
        return (
            made if self.minimum is None else {**made, "type": ["string", "integer"], "minimum": self.minimum}
        )


@dataclass(frozen=True)
class Alone:
    """Annotates a model for which the value of one ``field`` may stand alone."""

    field: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read what is no mapping as the field."""
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, Mapping | Model) else {self.field: value},
            handler(source),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Judge a mapping as such, and anything else as the field, so that an error speaks of what was meant."""
        made = handler(schema)
        field = handler.resolve_ref_schema(made)["properties"][self.field]
        written = {name: value for name, value in field.items() if name not in ("description", "examples")}
        return {"if": {"type": "object"}, "then": made, "else": written}


@dataclass(frozen=True)
class OrFlag:
    """Annotates a model for which true stands where nothing of it is to be said, and false for none."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read true and false before anything else."""
        flags: dict[bool, Any] = {True: {}, False: None}
        return core_schema.no_info_before_validator_function(
            lambda value: flags[value] if isinstance(value, bool) else value, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Judge all but true and false as the model."""
        return {"if": {"type": "boolean"}, "else": handler(schema)}


def one_mistake(what: str) -> WrapValidator:
    """Annotate a union: whatever none of its members takes is one mistake, "expected ...", not one for each."""

    def check(value: Any, members: ValidatorFunctionWrapHandler) -> Any:
        try:
            return members(value)
        except ValidationError:
            raise mistake(f"expected {what}, got {describe(value)}", kind="union") from None

    return WrapValidator(check)


IN_QUOTES = "write it in quotes"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def _text(value: Any) -> Any:
    """Read text; a plain number is text too, unless its spelling would be lost."""
    if isinstance(value, SpelledInt):
        raise mistake(f"expected text, got the number {int(value)} (YAML reads {value.text} so)", IN_QUOTES)
    if isinstance(value, (bool, float)):
        why = " (YAML reads on, off, yes, no, true and false so)" if isinstance(value, bool) else ""
        raise mistake(f"expected text, got {describe(value)}{why}", IN_QUOTES, "text")
    return str(value) if isinstance(value, int) else value


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
    if isinstance(value, SpelledInt):
        message = f"{value.text} is {int(value)} to this YAML parser, and may be something else to others"
        raise mistake(message, f"write {int(value)}")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
        return int(value)
    if isinstance(value, (bool, float, str)):
        exponent = isinstance(value, str) and re.fullmatch(r"[0-9]+\.?[0-9]*[eE][0-9]{1,2}", value)
        hint = f"write {int(float(value))}" if exponent else None
        raise mistake(f"expected a whole number, got {describe(value)}", hint, "whole_number")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, (bool, SpelledInt)):
        raise mistake(f"expected a number, got {describe(value)}", kind="number")
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise mistake(f"expected true or false, got {describe(value)}", kind="flag")
    return value


Text = Annotated[str, BeforeValidator(_text), AfterValidator(_without_nul), shape("string", "integer")]
"""Any text, of many lines too."""
Word = Annotated[
    str, BeforeValidator(_text), AfterValidator(_one_line), shape("string", "integer", pattern=LINE)
]
"""One line of text that is not empty and has no control characters."""
WHOLE = BeforeValidator(_whole_number)
"""Reads whole numbers; bounds stand before it."""
Int = Annotated[int, WHOLE]
"""A whole number."""
Count = Annotated[int, Field(ge=0), WHOLE]
"""A whole number from 0."""
Positive = Annotated[int, Field(ge=1), WHOLE]
"""A whole number from 1."""
Number = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
"""A number from 0."""
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
"""A number above 0."""
Flag = Annotated[bool, BeforeValidator(_flag)]
"""True or false, and no other word."""


def _scalar(value: Any) -> Any:
    if not isinstance(value, (str, int, float)):
        raise mistake(f"expected text, a number, true or false, got {describe(value)}", kind="scalar")
    return value


Scalar = Annotated[Any, AfterValidator(_scalar), shape("string", "number", "boolean")]
"""Text, a number, true or false, kept as it is."""

DURATION = re.compile(r"(\d{1,9})(s|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _duration(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise mistake(f"expected a duration, got {describe(value)}", "write a unit: 45s, 30m, 12h, 14d or 2w")
    return value


Duration = Annotated[
    Word, Format(DURATION.pattern, "a duration", "45s, 30m, 12h, 14d or 2w"), BeforeValidator(_duration)
]
"""A duration such as ``45s``, ``30m``, ``12h``, ``14d``, ``2w``; ``duration_seconds`` reads it."""


def duration_seconds(duration: str) -> int:
    """Return the seconds of a ``Duration``.

    >>> duration_seconds("14d")
    1209600
    """
    match = DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"not a duration: {duration!r}")
    return int(match[1]) * _SECONDS[match[2]]


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
    shape("string", pattern=f"(?!{'|'.join(_OWNED_VARIABLES)}){_VARIABLE.pattern}"),
]
Umask = Annotated[Text, Format(r"0?[0-7]{3}", "a umask", "0027", 'write it in quotes, such as "0027"')]
"""A umask in octal digits."""
Env = dict[Variable, Text]
"""Environment variables by name."""
