"""This machine's own cache: fetched wheels by hash, built wheels by their source, what was planned before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagster_slurm_components.hosts.satellite.locks import kept

CACHE_VARIABLE = "DAGSTER_SLURM_CACHE"
"""Environment variable that names the cache, instead of ``dagster-slurm`` in the user's cache folder."""


def cache_folder(*parts: str) -> Path:
    """Return a folder of the cache, made 0700 where it is missing."""
    named = os.environ.get(CACHE_VARIABLE)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dagster-slurm"
    folder = (Path(named).expanduser().absolute() if named else base).joinpath(*parts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def digest_of(*parts: object) -> str:
    """Return a hash of JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1024 * 1024), b""):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to, which takes its place when the block succeeds."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def remember(kind: str, name: str, value: Any) -> None:
    """Keep a JSON value."""
    with new_file(cache_folder(kind) / f"{name}.json") as file:
        file.write_text(json.dumps(value), encoding="utf-8")


def recall(kind: str, name: str) -> Any:
    """Return a kept value and its age's epoch as ``(value, mtime)``, or None. A broken file counts as none."""
    path = cache_folder(kind) / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return None


def only_one(name: str) -> contextlib.AbstractContextManager[None]:
    """Let only one process of this machine be inside at a time; a killed one is out."""
    return kept(os.fsencode(cache_folder("locks") / f"{name}.lock"), math.inf)
