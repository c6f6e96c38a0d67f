"""Puts the Pipes context into the run directory: a file beside the payload, whatever its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster_pipes import PipesContextData, PipesParams


class RunDirectoryContextInjector(dg.PipesContextInjector):
    """Keeps the context for the bundle and tells the payload where it will find it.

    Args:
        path: The path of ``context.json`` on the host.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.content = b"{}"
        """The file's content, once the session is open."""

    @contextmanager
    def inject_context(self, context: PipesContextData) -> Iterator[PipesParams]:
        """Serialize the context; the file itself travels with the bundle."""
        self.content = json.dumps(context).encode()
        yield {"path": self._path}

    def no_messages_debug_text(self) -> str:
        """Say where the payload was to find its context."""
        return f"The payload was given its Pipes context in {self._path}."
