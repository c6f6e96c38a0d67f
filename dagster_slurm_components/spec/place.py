"""Where in a YAML file something was written."""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Keys and list indices from the root of a document to a node."""

KEY = "[key]"
"""As the last part of a path: the key itself instead of its value (pydantic's own convention)."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file, 1-based, as editors count.

    Attributes:
        file: The file's name.
        line: The line.
        column: The column, in characters.
    """

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """Render as ``file:line:column``, which editors and terminals open."""
        return f"{self.file}:{self.line}:{self.column}"
