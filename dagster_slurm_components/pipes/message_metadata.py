"""Metadata of the payload's reports, as values that Dagster stores and its UI can show. Pure.

GraphQL and JSON have no NaN and no infinity: one such number, in a table's last row too, and the asset's page shows
an error instead (dagster 1.13). Dagster also takes no value that does not match the type that it is said to have.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

_INFER = "__infer__"
_DEEPEST = 50
"""Levels of nesting that are kept. Dagster packs values with several calls a level; a thousand are too many."""
_TEXT = frozenset({"text", "url", "path", "notebook", "md", "dagster_run", "asset"})
_NUMBERS = frozenset({"float", "timestamp"})
_KEPT = frozenset({"__class__", "__enum__", "__set__", "__frozenset__", "__mapping_items__"})
"""Names by which Dagster stores objects of its own: it could not read an event again whose JSON holds one."""
COMPLEX = frozenset({"table", "table_schema", "table_column_lineage"})
"""Types whose shape Dagster alone knows."""


def metadata_from(raw: object, owner: str) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return what a payload wrote in the protocol's shape, and a sentence for each kind of change.

    >>> metadata_from({"rows": 3}, "asset `a`")[0]
    {'rows': {'raw_value': 3, 'type': '__infer__'}}
    """
    if raw is None:
        return None, ()
    if not isinstance(raw, Mapping):
        return None, (f"Metadata of {owner}: {shortened(raw)} is no object with names; it was left out.",)
    metadata: dict[str, Any] = {}
    changes: dict[str, list[str]] = {}
    for key, value in raw.items():
        name = _name(key)
        metadata[name], texts = _value(value)
        for text in filter(None, texts):
            changes.setdefault(text, []).append(name)
    return metadata, tuple(
        f"Metadata of {owner}: {text}: {_names(names)}." for text, names in changes.items()
    )


def without_complex(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata whose tables are plain JSON: that is shown whatever its shape."""
    return {
        name: {**value, "type": _INFER} if value["type"] in COMPLEX else value
        for name, value in metadata.items()
    }


def well_formed(text: str) -> str:
    r"""Return a text without lone surrogates, which JSON can write and UTF-8 can't.

    >>> well_formed("a\ud800")
    'a?'
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def shortened(value: object) -> str:
    """Return a value as short JSON."""
    text = json.dumps(cleaned(value)[0])
    return text if len(text) <= 100 else f"{text[:100]}..."


def _names(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{shown}{more}"


def _value(value: Any) -> tuple[dict[str, Any], tuple[str, str]]:
    """Return a value with its type, and what was wrong with how it was written and with its content."""
    raw, kind, change = value, _INFER, ""  # bare values are as good as those whose type is to be inferred
    if isinstance(value, Mapping) and "raw_value" in value and isinstance(value.get("type"), str):
        raw, kind = value["raw_value"], value["type"]
        if not _matches(raw, kind):
            kind, change = _INFER, f"no {shortened(kind)}, so that the type was inferred"
        elif kind in _NUMBERS:
            raw = float(raw)
    content, change_of_content = cleaned(raw)
    if isinstance(raw, float) and isinstance(content, str):
        kind = "text"
    content = _with_parts(content) if kind == "table_column_lineage" else content
    return {"raw_value": content, "type": kind}, (change, change_of_content)


def _with_parts(lineage: Any) -> Any:
    """Return column lineage whose asset keys are lists of parts; of `a/b` Dagster would make one part (1.13)."""
    if isinstance(lineage, dict):
        return {
            name: value.split("/") if name == "asset_key" and isinstance(value, str) else _with_parts(value)
            for name, value in lineage.items()
        }
    return [*map(_with_parts, lineage)] if isinstance(lineage, list) else lineage


def _matches(raw: object, kind: str) -> bool:
    """Return whether Dagster takes the value for the type that it is said to have."""
    if kind in _TEXT:
        return isinstance(raw, str) and bool(raw or kind == "text")
    if kind in _NUMBERS:
        return isinstance(raw, float) or (type(raw) is int and abs(raw) < 10**300)
    if kind == "int":
        return type(raw) is int  # a bool is an int, and Dagster tells them apart
    if kind == "json":
        return isinstance(raw, (dict, list))
    return kind in {_INFER, *COMPLEX} or (isinstance(raw, bool) if kind == "bool" else kind == "null")


def cleaned(value: Any, depth: int = _DEEPEST) -> tuple[Any, str]:
    """Return JSON data that any reader of JSON takes, and what was changed, in words."""
    if isinstance(value, str):
        return well_formed(value), ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value), "numbers that are not finite, shown as text"
    if not isinstance(value, (dict, list)):
        return value, ""
    if depth == 0:
        return "...", f"nested deeper than {_DEEPEST} levels, what lies below is shown as `...`"
    kept = [key for key in value if key in _KEPT] if isinstance(value, dict) else []
    inner = [cleaned(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value)]
    items, changes = [item for item, _ in inner], [change for _, change in inner if change]
    if kept:
        changes.append(f"a name that Dagster keeps for itself, shown as `{_name(kept[0])}`")
    made = dict(zip(map(_name, value), items, strict=True)) if isinstance(value, dict) else items
    return made, changes[0] if changes else ""


def _name(key: object) -> str:
    """Return a key of JSON; one of YAML may be a number, a truth value or nothing."""
    if not isinstance(key, str):
        return json.dumps(key)
    return f"_{key}" if key in _KEPT else well_formed(key)
