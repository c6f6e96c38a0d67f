"""What validators raise: a message, and what to write instead."""

from __future__ import annotations

from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError


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
