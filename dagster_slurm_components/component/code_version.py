"""The code version of a script: a hash of all that was written to shape its result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

from dagster_slurm_components.component.declare import DeclaredScript
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
        digest.update(_file_digest(file))
    return digest.hexdigest()[:16]


def _file_digest(file: FilePath) -> bytes:
    seen = os.stat(file)
    return _content_digest(str(file), seen.st_mtime_ns, seen.st_size, seen.st_ino)


@lru_cache(maxsize=65_536)
def _content_digest(file: str, mtime_ns: int, size: int, inode: int) -> bytes:
    """Hash a file's content; the same file is read once, for many scripts may ship it."""
    with open(file, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").digest()
            if hasattr(hashlib, "file_digest")
            else _chunks(stream)
        )


def _chunks(stream: Any) -> bytes:
    # Python 3.10 has no `hashlib.file_digest`.
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.digest()
