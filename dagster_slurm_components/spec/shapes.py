"""Annotations that check a value and write the same check into its JSON Schema."""

from __future__ import annotations

import re
from typing import Any

from pydantic import (
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from dagster_slurm_components.spec.mistakes import mistake
from dagster_slurm_components.spec.problems import describe

TEMPLATE = r"\{\{[\s\S]*\}\}|\{%[\s\S]*%\}"
"""Pattern of text that holds a template; JSON Schemas let it pass everywhere."""


UNRENDERED = "unrendered"
"""Validation context of trees whose templates nobody has rendered yet."""


def or_template(pattern: str) -> str:
    """Return the JSON Schema pattern of text that matches a pattern whole, or holds a template."""
    plain = re.sub(r"\?P<\w+>", "", pattern).replace(r"\d", "[0-9]")
    return rf"^(?:{plain})$|{TEMPLATE}"


def shape(*types: str, pattern: str | None = None, **bounds: Any) -> WithJsonSchema:
    """Return what a type looks like in a JSON Schema, where ``pattern`` binds text and bounds bind numbers."""
    known: dict[str, Any] = {"type": list(types) if len(types) > 1 else types[0], **bounds}
    if pattern is not None:
        known["pattern"] = or_template(pattern)
    return WithJsonSchema(known)


class Format:
    """Annotates text with the pattern that it matches whole.

    Args:
        pattern: The pattern, as Python and ECMAScript read it alike, save for names of groups.
        what: What the text is, for an error.
        example: What to write.
        hint: How to write it, where an example does not say enough.
        minimum: The least of plain numbers; without it a plain number is not one of these.
        keeps_templates: A template that nobody has rendered yet stays. For fields that must be there; others are
            better unset as long as nobody knows their value.
    """

    def __init__(
        self,
        pattern: str,
        what: str,
        example: str = "",
        *,
        hint: str | None = None,
        minimum: int | None = None,
        keeps_templates: bool = False,
    ) -> None:
        self.pattern = pattern
        self.what = what
        self.hint = hint or f"write one like {example}"
        self.minimum = minimum
        self.keeps_templates = keeps_templates

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the text after everything else."""
        compiled = re.compile(self.pattern, re.ASCII)

        def check(value: str, info: ValidationInfo) -> str:
            waits = self.keeps_templates and info.context is UNRENDERED and "{{" in value
            if not compiled.fullmatch(value) and not waits:
                raise mistake(f"{value!r} is not {self.what}", self.hint, "format")
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
