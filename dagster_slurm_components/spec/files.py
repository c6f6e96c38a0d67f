"""The files that a script ships."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path as FilePath


def matching_files(folder: FilePath, patterns: Iterable[str]) -> tuple[FilePath, ...]:
    """Return the files that the glob patterns match in ``folder``, each once, sorted within a pattern.

    A pattern that names a folder takes all files in it, save hidden ones and ``__pycache__``.

    Args:
        folder: Where relative patterns start.
        patterns: Glob patterns, ``**`` for any depth.
    """
    found: dict[FilePath, None] = {}
    for pattern in patterns:
        for path in sorted(_matches(folder, pattern)):
            if path.is_dir():
                inside = (p for p in sorted(path.rglob("*")) if p.is_file() and not _is_hidden(p, path))
                found.update(dict.fromkeys(inside))
            else:
                found[path] = None
    return tuple(found)


def _matches(folder: FilePath, pattern: str) -> Iterable[FilePath]:
    if not any(mark in pattern for mark in "*?["):
        path = folder / pattern
        return [path] if path.exists() else []
    if FilePath(pattern).is_absolute():
        anchor = FilePath(pattern).anchor
        folder, pattern = FilePath(anchor), str(FilePath(pattern).relative_to(anchor))
    return [path for path in folder.glob(pattern) if path.is_file() and "__pycache__" not in path.parts]


def _is_hidden(path: FilePath, root: FilePath) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(root).parts)
