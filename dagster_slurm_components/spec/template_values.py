"""What templates know beside ``env``: the chosen profile's values, and the test cluster of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from dagster_slurm_components.spec.merge import Layer, merge
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


def unknown(name: str, key: str, values: Mapping[str, Any]) -> UnknownValueError:
    """Return the error for a name that is not there."""
    hint = did_you_mean(key, values) if values else None
    return UnknownValueError(f"`{name}` has no `{key}`" + (f"; {hint}" if hint else ""))


class LazyValues:
    """Values that templates read by dots, each of them made when the first template asks for it.

    So a template that asks for ``profile.env.DATA_DIR`` needs none of the secrets that the rest of a profile names.

    Args:
        name: What templates call them.
        read: Returns, by name, what makes each value.
    """

    def __init__(self, name: str, read: Callable[[], Mapping[str, Callable[[], Any]]]) -> None:
        self._name = name
        self._read = read
        self._values: dict[str, Any] = {}

    @cached_property
    def _makers(self) -> Mapping[str, Callable[[], Any]]:
        return self._read()

    def __getitem__(self, key: str) -> Any:
        # Jinja tries attributes first, and takes an AttributeError for "look here".
        if key not in self._makers:
            raise unknown(self._name, key, self._makers)
        if key not in self._values:
            self._values[key] = nested(f"{self._name}.{key}", self._makers[key]())
        return self._values[key]


def layered_value(documents: Iterable[Document], key: str, default: Any, scope: Mapping[str, Any]) -> Any:
    """Return the rendered value of a key of layered documents, lowest first; the default if none of them has it."""
    layers = []
    for document in documents:
        if document.data.get(key) is not None:
            view = document.child((key,))
            data = {key: render(view.data, view.position, scope=scope)}
            layers.append(Layer("", data, view.position))
    return merge(layers).data.get(key, default)
