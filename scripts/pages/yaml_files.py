"""The page of every field of every YAML file, from the JSON Schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pages.text import GENERATED, ROOT, prose, table

YAML = {
    "A component's `defs.yaml`": "DefsFile",
    "A profile": "Profile",
    "A site": "Site",
}
"""The files, and the definition of each; what it refers to follows it."""


def yaml_page() -> str:
    """Return the page of every field of every YAML file."""
    schema = json.loads((ROOT / "schemas" / "definitions.schema.json").read_text("utf-8"))["$defs"]
    parts = [
        GENERATED,
        "# YAML: every field",
        "What is left out comes from the profile, or has the default named here. Fields without `default` that are not"
        " marked as required may be left out. Where a value may be a template, `{{ ... }}` stands for it.",
    ]
    shown: set[str] = set()
    for title, name in YAML.items():
        parts.append(f"## {title}")
        parts += _definition(name, schema, shown)
    if missing := schema.keys() - shown:
        raise SystemExit(f"The YAML page leaves out: {', '.join(sorted(missing))}")
    return "\n\n".join(parts) + "\n"


def _definition(name: str, schema: Mapping[str, Any], shown: set[str]) -> Iterator[str]:
    if name in shown:
        return
    shown.add(name)
    one = schema[name]
    described, _, example = one.get("description", "").partition("Example:")
    variants = [case["then"]["$ref"] for case in one.get("allOf", []) if "$ref" in case.get("then", {})]
    yield f"### {_title(name)}"
    if described:
        yield prose(described)
    if example:
        yield prose(f"{'Example:'}\n\n" + re.sub(r"^ {4}", "", example.lstrip("\n"), flags=re.MULTILINE))
    if variants:
        yield "One of, by its `type`: " + ", ".join(_link(each) for each in variants) + "."
    else:
        required = set(one.get("required", []))
        yield from _fields_of(one, schema, required)
        for key, field in _properties(one).items():
            if isinstance(field, dict) and "properties" in field:
                yield f"### {_title(name)}: `{key}`"
                yield from _fields_of(field, schema, set(field.get("required", [])))
    for each in [*variants, *_references(one)]:
        yield from _definition(each.rpartition("/")[2], schema, shown)


def _properties(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a model, with those that it has where its type is ours."""
    fields = dict(one.get("properties", {}))
    for key, field in one.get("then", {}).get("properties", {}).items():
        if isinstance(field, dict) or key not in fields:
            fields[key] = field
    for case in one.get("allOf", []):  # what is only named above is described where it belongs to one type
        for key, field in case.get("then", {}).get("properties", {}).items():
            if key in fields and not isinstance(fields[key], dict):
                fields[key] = field
    return fields


def _fields_of(one: Mapping[str, Any], schema: Mapping[str, Any], required: set[str]) -> Iterator[str]:
    fields = _properties(one)
    rows = [_field(key, _whole(field, schema), key in required) for key, field in fields.items()]
    if rows:
        yield table(("field", "value", "what"), rows)


def _whole(field: Any, schema: Mapping[str, Any]) -> Any:
    """Return a field; one that refers to the same field of another model, with what stands there."""
    deep = field.get("$ref", "").split("/")[2:] if isinstance(field, dict) else []
    if len(deep) == 1:
        return {"description": schema[deep[0]].get("description", "").partition("\n")[0], **field}
    if not deep:
        return field
    there: Any = schema
    for key in deep:
        there = there[key]
    return {**_whole(there, schema), **{key: value for key, value in field.items() if key != "$ref"}}


def _field(name: str, field: Any, required: bool) -> tuple[str, str, str]:
    if not isinstance(field, dict):
        return f"`{name}`", "", ""
    links = list(dict.fromkeys(_link(each) for each in _references(field)))
    kinds = field.get("enum") or [case for part in field.get("anyOf", []) for case in part.get("enum", [])]
    value = ", ".join(links) or ", ".join(f"`{kind}`" for kind in kinds)
    if "const" in field:
        value = f"`{field['const']}`"
    elif not value and "type" in field:
        types = field["type"] if isinstance(field["type"], list) else [field["type"]]
        value = types[0]
    what = field.get("description", "")
    if required:
        what += " Required."
    elif field.get("default") not in (None, [], "") and not isinstance(field["default"], dict):
        what += f" Default: `{json.dumps(field['default'])}`."
    if "const" not in field and (examples := field.get("examples")):
        what += (
            " Example: " + ", ".join(f"`{json.dumps(each, ensure_ascii=False)}`" for each in examples) + "."
        )
    return f"`{name}`", value, what


_DEPTH = 2
"""Slashes of a reference to a model: ``#/$defs/Script``."""


def _references(tree: Any) -> Iterator[str]:
    """Yield what a schema refers to, in order."""
    if isinstance(tree, dict):
        if isinstance(reference := tree.get("$ref"), str) and reference.count("/") == _DEPTH:
            yield reference
        for key, each in tree.items():
            if key not in ("examples", "default"):
                yield from _references(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from _references(each)


def _title(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def _link(reference: str) -> str:
    title = _title(reference.rpartition("/")[2])
    return f"[{title}](#{title.lower().replace(' ', '-')})"
