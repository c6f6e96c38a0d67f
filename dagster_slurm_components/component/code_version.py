"""The code version of a script: a hash of all that was written to shape its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dagster_slurm_components.component.declare import DeclaredScript
from dagster_slurm_components.spec.files import file_digest
from dagster_slurm_components.spec.merge import Layer, merge
from dagster_slurm_components.spec.resolve import CONTENT


def code_version(declared: DeclaredScript, written_defaults: Mapping[str, Any]) -> str:
    """Return the version of a script's code: a hash of its files, and of what was written in script and defaults.

    The same in every profile and on every machine. Templates count as they stand, not by what they give here: a
    value may be a secret, and versions are shown.

    Args:
        declared: The script.
        written_defaults: The component's defaults with templates as they stand.
    """
    written = declared.entry.written
    if written_defaults:
        layers = [Layer("", data, lambda path: None) for data in (written_defaults, written)]
        written = merge(layers).data
    content = {key: written[key] for key in CONTENT if written.get(key) is not None}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    for where, file in sorted(declared.files.items()):
        digest.update(f"\0{where}\0".encode("utf-8", "surrogateescape"))
        digest.update(file_digest(file))
    return digest.hexdigest()[:16]
