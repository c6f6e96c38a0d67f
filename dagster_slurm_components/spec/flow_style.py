"""Small trees written as YAML by a person's taste: in one line, in quotes only where they are needed."""

import json
from collections.abc import Mapping
from typing import Any

_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_HARMLESS = frozenset("/_.-$~@")


def flow_style(value: Any) -> str:
    """Return a tree of mappings, lists and scalars as one line of YAML.

    >>> flow_style({"type": "path", "path": "/opt/env", "modules": ["gcc/12", "1.0"], "full": True})
    '{type: path, path: /opt/env, modules: [gcc/12, "1.0"], full: true}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow_style(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow_style, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value)


def _text(text: str) -> str:
    """Write text bare where no YAML parser takes it for anything else, and in quotes elsewhere."""
    letters = "".join(letter for letter in text if letter not in _HARMLESS)
    starts = text[:1].isalpha() or text[:1] in ("/", "$")
    if letters.isascii() and letters.isalnum() and starts and text.lower() not in _WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    # YAML has no place for these, or takes them for ends of lines.
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted)
