"""Where in a YAML file something was written, and walks over the trees that files hold."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the root of a document to a node."""

KEY = "[key]"
"""As the last part of a path: the key itself instead of its value (pydantic's own convention)."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file: line and column in characters, counted from 1, as editors do; 0 where it is no file's."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """Render as ``file:line:column``, which editors and terminals open."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


Locate = Callable[[KeyPath], Position | None]
"""Finds where a path was written; paths may end with ``KEY``."""


def texts(tree: Any, path: KeyPath = ()) -> Iterator[tuple[str, KeyPath]]:
    """Yield each text of a raw tree with its path, keys too."""
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from texts(key, (*path, key, KEY))
            yield from texts(item, (*path, key))
    elif isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from texts(item, (*path, index))
    elif isinstance(tree, str):
        yield tree, path


def with_templates(tree: Any, replace: Callable[[str, KeyPath], Any], path: KeyPath = ()) -> Any:
    """Return a copy of a raw tree in which ``replace`` is asked for each text that may hold a template, keys too."""
    if isinstance(tree, str):
        return replace(tree, path) if "{" in tree else tree
    if isinstance(tree, dict):
        copy = {}
        for key, item in tree.items():
            # Most keys and texts have no brace, and each of a thousand scripts is walked twice.
            new_key = with_templates(key, replace, (*path, key, KEY)) if "{" in str(key) else key
            copy[new_key] = with_templates(item, replace, (*path, key))
        return copy
    if isinstance(tree, list):
        return [with_templates(item, replace, (*path, index)) for index, item in enumerate(tree)]
    return tree
