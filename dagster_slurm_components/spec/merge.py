"""Layers of YAML into one tree that remembers which layer each value came from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_slurm_components.spec.place import KEY, KeyPath, Locate, Position

EXCLUSIVE: Mapping[KeyPath, tuple[str, ...]] = {
    (): ("payload", "command"),
    ("resources",): ("mem", "mem_per_cpu", "mem_per_gpu"),
    ("environment",): ("project", "requirements"),
}
"""Keys of one mapping that exclude each other: a higher layer's choice takes the place of a lower layer's."""

SHORT: Mapping[KeyPath, str] = {("inputs",): "source", ("outputs",): "path", ("relay",): "path"}
"""Below these a value that stands alone is that of a field, over which a higher layer may lay others."""


@dataclass(frozen=True)
class Layer:
    """One source of values.

    Attributes:
        name: What a user calls it: ``site leonardo``, ``profile production``, ``defaults``, ``script``.
        data: The raw tree, before any default of a model.
        position: Finds where a path of it was written.
        folder: Where its relative paths start, if it has any.
        written: The raw tree with its templates as they stand, where they were rendered.
    """

    name: str
    data: Mapping[str, Any]
    position: Locate
    folder: Path | None = None
    written: Mapping[str, Any] | None = None

    def as_written(self, path: KeyPath) -> Any:
        """Return the value at a path with its templates as they stand; nothing where a template gave the whole."""
        value: Any = self.data if self.written is None else self.written
        for key in path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return value


@dataclass(frozen=True)
class Merged:
    """The raw values that won, and the layer of every leaf: scalars, lists and empty mappings.

    Relative paths that no file wrote start at ``start``.
    """

    data: dict[str, Any]
    sources: Mapping[KeyPath, Layer]
    start: Path = Path()

    def source(self, path: KeyPath) -> Layer | None:
        """Return the layer that the value at ``path`` came from.

        Inside a list this is the list's layer. Of a mapping it is the highest layer that wrote in it; of a
        missing value it is that of its nearest ancestor.
        """
        path = path[:-1] if path[-1:] == (KEY,) else path
        for end in range(len(path), -1, -1):
            if path[:end] in self.sources:
                return self.sources[path[:end]]
            below = [layer for leaf, layer in self.sources.items() if leaf[:end] == path[:end]]
            if below:
                return below[-1]
        return None

    def folder(self, path: KeyPath) -> Path:
        """Return the folder where a relative path that is written at ``path`` starts.

        A path starts beside the YAML that wrote it: a profile's at the project folder, those of
        ``defaults`` and of an included script at the folder of their own file.
        """
        layer = self.source(path)
        return (layer.folder if layer else None) or self.start

    def as_written(self, path: KeyPath) -> Any:
        """Return the winning value at ``path`` with its templates as they stand: a rendered secret is not in it."""
        layer = self.source(path)
        return layer.as_written(path) if layer else None

    def position(self, path: KeyPath) -> Position | None:
        """Return where the value at ``path`` was written."""
        layer = self.source(path)
        return layer.position(path) if layer else None


def merge(layers: Sequence[Layer], start: Path = Path()) -> Merged:
    """Merge layers, lowest first.

    Mappings merge deep; lists and scalars replace. Two mappings that name different ``type``s describe
    different things, so the higher one replaces the lower whole. A key of an ``EXCLUSIVE`` group in a higher
    layer removes the group's others. A null in a higher layer is a value too: it takes the lower one away.
    """
    data: dict[str, Any] = {}
    sources: dict[KeyPath, Layer] = {}
    for layer in layers:
        _lay(data, layer.data, layer, (), sources)
    return Merged(data, sources, start)


def _lay(
    base: dict[str, Any], over: Mapping[str, Any], layer: Layer, path: KeyPath, sources: dict[KeyPath, Layer]
) -> None:
    """Lay one mapping over another, in place."""
    group = EXCLUSIVE.get(path, ())
    if any(over.get(key) is not None for key in group):
        for key in group:
            if key in base and key not in over:
                del base[key]
                _forget((*path, key), sources)
    for key, value in over.items():
        here: KeyPath = (*path, key)
        below: Any = base.get(key)
        if isinstance(value, Mapping) and isinstance(below, str | int) and path in SHORT:
            base[key] = below = {SHORT[path]: below}
            field: KeyPath = (*here, SHORT[path])
            sources[field] = sources.pop(here)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        # Two types are two kinds of things.
        if both and ("type" not in below or value.get("type", below["type"]) == below["type"]):
            if value:
                sources.pop(here, None)
            _lay(below, value, layer, here, sources)
            continue
        if key in base:
            _forget(here, sources)
        base[key] = _copy(value)
        sources.update(dict.fromkeys(_leaves(value, here), layer))


def _forget(path: KeyPath, sources: dict[KeyPath, Layer]) -> None:
    for leaf in [leaf for leaf in sources if leaf[: len(path)] == path]:
        del sources[leaf]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    # What a template gave may be a tuple of a kind of its own, as Dagster's partitions and conditions are.
    return [_copy(item) for item in value] if type(value) in (list, tuple) else value


def _leaves(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yield the path of every scalar, list and empty mapping."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    else:
        yield path
