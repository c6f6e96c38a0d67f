"""YAML text to plain data, with the place of every node and the traps of YAML 1.1 disarmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dagster_slurm_components.spec.place import KEY, KeyPath, Position
from dagster_slurm_components.spec.problems import Problem, SpecError

# libyaml scans about eight times as fast as PyYAML's own scanner.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MAX_NODES = 200_000
"""Nodes of one document once anchors are expanded; nested anchors ("billion laughs") grow exponentially."""
_MAX_DEPTH = 100
_Places = dict[tuple[str, ...], tuple[yaml.Node | None, yaml.Node]]
"""Key node and value node by path, whose parts are texts: a key as it was read, or an item's number."""
_TOO_DEEP = "the document nests too deep"


class SpelledInt(int):
    """An integer that was written otherwise than Python writes it: ``0x1F``, ``+5``, ``010``, ``12:30``, ``1_000``.

    Some of them are something else to a YAML 1.2 parser. Models that expect a number or a text refuse it; elsewhere it
    is the integer that PyYAML reads, and in a text what was written.
    """

    text: str

    def __new__(cls, value: int, text: str) -> SpelledInt:
        """Keep the spelling beside the value."""
        number = super().__new__(cls, value)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Document:
    """One YAML document, or the view of a subtree, as plain data that knows where each node was written.

    Attributes:
        index: The document's number in its file, from 0.
        start: Where it begins.
        text: The file's text: nodes with their places take far more memory, so they are made again when asked for.
        prefix: Where ``data`` hangs in the document.
    """

    file: str
    index: int
    data: Any
    start: Position
    text: str = field(repr=False, compare=False)
    prefix: tuple[str, ...] = ()

    def position(self, path: KeyPath = ()) -> Position:
        """Return where the node at ``path`` was written, or its nearest known ancestor; ``KEY`` is the key itself."""
        wants_key = path[-1:] == (KEY,)
        path = path[:-1] if wants_key else path
        if not path:  # without reading the document again, for each script is asked where it begins
            return self.start
        places, whole = _places(self.text)[self.index], (*self.prefix, *map(str, path))
        end = next(end for end in range(len(whole), -1, -1) if whole[:end] in places)
        if end <= len(self.prefix):
            return self.start
        key_node, node = places[whole[:end]]
        # A node that isn't written belongs where its parent's key is.
        return _at(key_node if key_node and (wants_key or end < len(whole)) else node, self.file)

    def child(self, path: KeyPath) -> Document:
        """Return the view of the subtree at ``path``, in the same file; a KeyError if nothing was written there."""
        whole, data = (*self.prefix, *map(str, path)), self.data
        _, node = _places(self.text)[self.index][whole]
        for part in path:
            data = data[part]
        return replace(self, data=data, start=_at(node, self.file), prefix=whole)


@lru_cache(maxsize=4)
def _places(text: str) -> tuple[_Places, ...]:
    builders = [_Builder("", node) for node in yaml.compose_all(text, Loader=_LOADER)]
    for builder in builders:
        builder.build(builder.root)
    return tuple(builder.places for builder in builders)


def load_documents(file: Path, *, keep_empty: bool = False) -> tuple[Document, ...]:
    """Read all YAML documents of a file; what can't be read, isn't UTF-8 or isn't right is a SpecError.

    With ``keep_empty``, documents with nothing in them come too, such as one after a trailing ``---``.
    """
    return parse_documents(read_text(file), str(file), keep_empty=keep_empty)


def read_text(file: Path) -> str:
    """Return the text of a YAML file; what can't be read, or isn't UTF-8, is a SpecError."""
    name = str(file)
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        message = f"{name}: can't be read: {exc.strerror or exc}"
        raise SpecError([Problem(message, kind="unreadable")]) from exc
    except UnicodeDecodeError as exc:
        where = Position(name, exc.object[: exc.start].count(b"\n") + 1, 1)
        problem = Problem("the file is not UTF-8", where, hint="save it as UTF-8", kind="encoding")
        raise SpecError([problem]) from exc


def parse_documents(text: str, file: str, *, keep_empty: bool = False) -> tuple[Document, ...]:
    """Read all YAML documents of a text; ``file`` is the name that positions carry.

    A SpecError tells that the text is empty or isn't YAML, or of duplicate keys, unknown tags and endless anchors.
    """
    text = text.removeprefix("\ufeff")
    try:
        nodes = list(yaml.compose_all(text, Loader=_LOADER))
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError) as exc:
        raise SpecError([_syntax_problem(exc, text, file)]) from exc
    documents = []
    problems: list[Problem] = []
    for index, node in enumerate(nodes):
        builder = _Builder(file, node)
        data = builder.build(node)
        problems += builder.problems
        start = _at(node, file) if data is not None else _before(_at(node, file), text)
        documents.append(Document(file, index, data, start, text))
    if problems:
        raise SpecError(problems)
    # A trailing `---` or a document of comments holds nothing, and so do all documents of an empty file.
    filled = [document for document in documents if document.data is not None]
    if not filled:
        raise SpecError([Problem("the file is empty", Position(file, 1, 1), kind="empty")])
    return tuple(documents if keep_empty else filled)


def _before(end: Position, text: str) -> Position:
    """Return where an empty document begins: libyaml says only where it ends."""
    lines = text.split("\n")[: end.line]
    marks = [number for number, line in enumerate(lines, 1) if line.startswith("---")]
    return Position(end.file, marks[-1] if marks else 1, 1)


class _Builder:
    """Turns one document's nodes into plain data, and collects what is wrong with them and where they are."""

    def __init__(self, file: str, root: yaml.Node) -> None:
        self.file = file
        self.root = root
        self.problems: list[Problem] = []
        self.places: _Places = {(): (None, root)}
        self.nodes = 0

    def build(self, node: yaml.Node, path: tuple[str, ...] = (), depth: int = 0) -> Any:
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            raise self._too_big(f"has more than {_MAX_NODES} nodes once its anchors are expanded")
        if depth > _MAX_DEPTH:
            raise self._too_big(f"nests deeper than {_MAX_DEPTH} levels, or an anchor holds itself")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self._report(f"the tag `{node.tag}` is not allowed", node, "remove the tag", kind="tag")
        if isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value)
            return [self._part(None, item, (*path, str(index)), depth) for index, item in items]
        return self._mapping(node, path, depth)

    def _too_big(self, why: str) -> SpecError:
        """Return the error of a document that no person wrote."""
        return SpecError([Problem(f"the document {why}", _at(self.root, self.file), kind="too_big")])

    def _part(self, key: yaml.Node | None, node: yaml.Node, path: tuple[str, ...], depth: int) -> Any:
        self.places.setdefault(path, (key, node))
        return self.build(node, path, depth + 1)

    def _mapping(self, node: yaml.Node, path: tuple[str, ...], depth: int) -> dict[Any, Any]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        key_nodes: dict[Any, yaml.Node] = {}
        sources: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                sources += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._report("a key must be text, not a list or a mapping", key_node, kind="key")
                continue
            key = self._scalar(key_node)
            identity = (type(key), key)
            if identity in key_nodes:
                first = key_nodes[identity].start_mark.line + 1
                message = f"`{key_node.value}` is written twice; the first is in line {first}"
                self._report(message, key_node, "keep one of the two", kind="duplicate_key")
            key_nodes[identity] = key_node
            own[key] = self._part(key_node, value_node, (*path, str(key)), depth)
        # What ``<<`` brings lies below the mapping's own keys; of several sources, the first wins.
        for source in sources:
            if isinstance(source, yaml.MappingNode):
                merged = self.build(source, path, depth + 1) | merged
            else:
                self._report("`<<` takes a mapping or a list of mappings", source, kind="merge_key")
        return merged | own if merged else own

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag = node.tag.removeprefix(_TAG)
        if tag not in _SCALARS:
            self._report(f"the tag `{node.tag}` is not allowed", node, "remove the tag", kind="tag")
            return None
        try:
            return _SCALARS[tag](node)
        except (LookupError, ValueError, OverflowError):
            self._report(f"{node.value[:40]!r} is not a valid {tag}", node, kind="scalar")
            return None

    def _report(self, message: str, node: yaml.Node, hint: str | None = None, *, kind: str) -> None:
        self.problems.append(Problem(message, _at(node, self.file), hint=hint, kind=kind))


_SAFE = yaml.constructor.SafeConstructor()


def _integer(node: yaml.ScalarNode) -> int:
    value: int = _SAFE.construct_yaml_int(node)
    return value if str(value) == node.value else SpelledInt(value, node.value)


_SCALARS: Mapping[str, Callable[[yaml.ScalarNode], Any]] = {
    # dates stay text, as in Dagster's own loader
    **dict.fromkeys(("str", "timestamp", "value", "merge"), lambda node: node.value),
    "null": lambda node: None,
    "bool": _SAFE.construct_yaml_bool,
    "int": _integer,
    "float": _SAFE.construct_yaml_float,
}


def _at(node: yaml.Node, file: str) -> Position:
    return Position(file, node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax_problem(exc: Exception, text: str, file: str) -> Problem:
    """Say where and why a text isn't YAML."""
    if isinstance(exc, yaml.MarkedYAMLError):
        mark = exc.problem_mark or exc.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
        reason = " ".join(part for part in (exc.context, exc.problem) if part)
        if "nesting depth" in reason:  # newer libyaml stops at a thousand levels; older ones let Python do so
            return Problem(_TOO_DEEP, position, kind="too_big")
        line = "".join(text.split("\n")[position.line - 1 : position.line])
        indent, rest = line[: len(line) - len(line.lstrip())], line[position.column - 1 :]
        tabbed = "\t" in indent or rest.startswith("\t")
        hint = "indent with spaces; YAML forbids tabs there" if tabbed else None
        return Problem(f"not valid YAML: {reason}", position, hint=hint, kind="syntax")
    if isinstance(exc, RecursionError):
        return Problem(_TOO_DEEP, Position(file, 1, 1), kind="too_big")
    index = getattr(exc, "position", getattr(exc, "start", 0))
    before = text[:index] if isinstance(index, int) else ""
    position = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
    return Problem("not valid YAML: a character that YAML forbids", position, kind="syntax")
