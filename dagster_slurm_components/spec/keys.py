"""Asset keys as they are written in YAML."""

import keyword
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from dagster_slurm_components.spec.base import Format, Word, or_template, shape
from dagster_slurm_components.spec.model import mistake

RESERVED = frozenset(
    {"arg_dict", "bool", "conf", "config", "context", "dict", "float", "input", "input_arg_dict", "int"}
    | {"meta", "output", "output_arg_dict", "str", "type"}
    | set(keyword.kwlist)
)
"""Names that Dagster keeps for itself (dagster 1.13, `check_valid_name`), beside Python's own."""
_KEY_PART = r"[A-Za-z0-9_.\-]+"
_KEY = rf"{_KEY_PART}(?:/{_KEY_PART})*"


def _key(value: Any) -> Any:
    """Read an asset key: ``a/b``, or ``[a, b]``."""
    if not isinstance(value, (list, tuple)):
        return value
    if not value or not all(isinstance(part, str) and part and "/" not in part for part in value):
        message = "expected an asset key: text, or a list of texts"
        raise mistake(message, "write `a/b` or `[a, b]`", "asset_key")
    return "/".join(value)


def _not_taken(key: str) -> str:
    if key in RESERVED:
        raise mistake(f"`{key}` is a word of Python or Dagster", "choose a longer key, such as `data/type`")
    return key


AssetKey = Annotated[
    Word,
    BeforeValidator(_key),
    AfterValidator(_not_taken),
    Format(
        _KEY,
        "an asset key: letters, digits, `_`, `.` and `-`, with slashes between parts",
        "models/digits",
        keeps_templates=True,
    ),
    shape(
        "string",
        "integer",
        "array",
        pattern=_KEY,
        items={"type": "string", "pattern": or_template(_KEY_PART)},
        minItems=1,
    ),
]
"""An asset key as Dagster users write it: ``models/digits``. Dagster refuses other characters in keys of ops."""
