"""This machine's own cache: fetched files by hash, built wheels by their source, what was planned before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from dagster_slurm_components.environments.host.files import new_file
from dagster_slurm_components.hosts import turns

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


def remember(kind: str, name: str, value: Any) -> None:
    """Keep a JSON value."""
    with new_file(cache_folder(kind) / f"{name}.json") as file:
        Path(file).write_text(json.dumps(value), encoding="utf-8")


def recall(kind: str, name: str) -> Any:
    """Return a kept value and its age's epoch as ``(value, mtime)``, or None. A broken file counts as none."""
    path = cache_folder(kind) / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return None


def only_one(name: str) -> contextlib.AbstractContextManager[None]:
    """Let only one process of this machine be inside at a time; a killed one is out."""
    return turns.only_one(cache_folder("locks") / f"{name}.lock")
