"""What templates know beside ``env``: the chosen profile's values, and the test cluster of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

from dagster_slurm_components.spec.merge import Layer, merge
from dagster_slurm_components.spec.place import Path, Position
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.source import Document
from dagster_slurm_components.spec.templates import render


class UnknownValueError(ValueError):
    """A template asks for a value that is not there."""


class Values(dict[str, Any]):
    """A mapping that templates read by dots; an unknown name is an error that says which names there are.

    ``{{ profile.env.get('NAME', 'default') }}`` is for what may be missing.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name = name
        super().__init__({key: nested(f"{name}.{key}", value) for key, value in values.items()})

    def __missing__(self, key: str) -> Any:
        raise unknown(self._name, key, self)


def nested(name: str, value: Any) -> Any:
    """Return a value with all mappings in it readable by dots."""
    return Values(name, value) if isinstance(value, Mapping) else value


def unknown(name: str, key: str, known: Mapping[str, Any]) -> UnknownValueError:
    """Return the error for a name that is not there."""
    hint = did_you_mean(key, known) if known else None
    return UnknownValueError(f"`{name}` has no `{key}`" + (f"; {hint}" if hint else ""))


class ByName(Protocol):
    """What templates read by dots."""

    def __getitem__(self, key: str, /) -> Any:
        """Return the value of a name."""


class LazyValues:
    """Values that are read when a template asks for the first of them.

    Args:
        read: Reads them.
    """

    def __init__(self, read: Callable[[], ByName]) -> None:
        self._read = read

    @cached_property
    def _values(self) -> ByName:
        return self._read()

    def __getitem__(self, key: str) -> Any:
        # Jinja tries attributes first, and takes an AttributeError for "look here".
        return self._values[key]


class DocumentValues:
    """The values of layered documents, each rendered when a template asks for it.

    So a template that asks for ``profile.env.DATA_DIR`` needs none of the secrets that the rest of a profile names.

    Args:
        name: What templates call them.
        documents: The documents, lowest first.
        fields: The names that may be asked for, with what holds where no document says anything.
        scope: What the documents' own templates know.
    """

    def __init__(
        self,
        name: str,
        documents: tuple[Document, ...],
        fields: Mapping[str, Any],
        scope: Mapping[str, Any],
    ) -> None:
        self._name = name
        self._documents = documents
        self._fields = fields
        self._scope = scope
        self._known: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._fields:
            raise unknown(self._name, key, self._fields)
        if key not in self._known:
            self._known[key] = nested(f"{self._name}.{key}", self._value(key))
        return self._known[key]

    def _value(self, key: str) -> Any:
        layers = []
        for document in self._documents:
            if document.data.get(key) is None:
                continue

            def place(path: Path, document: Document = document) -> Position | None:
                return document.position((key, *path))

            layers.append(Layer("", {key: render(document.data[key], place, scope=self._scope)}, place))
        return merge(layers).data.get(key, self._fields[key])
