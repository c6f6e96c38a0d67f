"""Which files travel with a script, and where they lie in its payload folder."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dagster_slurm_components.spec.base import mistake

_LEFT_OUT = frozenset({"__pycache__", ".git"})


def place(path: str) -> PurePosixPath:
    """Return where a path of a YAML file lies below the payload folder: itself, without leading ``..``.

    >>> str(place("../../workloads/train.py"))
    'workloads/train.py'
    """
    parts = PurePosixPath(os.path.normpath(path)).parts
    while parts and parts[0] in ("..", ".", "/"):
        parts = parts[1:]
    return PurePosixPath(*parts)


def matches(folder: Path, pattern: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the files that a path or glob pattern names, each with its place in the payload folder.

    A folder stands for all files below it, save for caches of Python and the folder of git.

    Args:
        folder: Where relative patterns start.
        pattern: A path, or a glob with ``*``, ``?``, ``[...]`` and ``**``.
    """
    exact = (folder / pattern).exists()  # a file may well be called `data[1].csv`
    found = [pattern] if exact else sorted(glob.glob(pattern, root_dir=folder, recursive=True))
    for path in found:
        for file in _files(folder / path):
            yield place(os.path.relpath(file, folder)), file


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not _LEFT_OUT.intersection(file.relative_to(path).parts):
                yield file


def payload_files(folder: Path, payload: str | None, patterns: Sequence[str]) -> Mapping[PurePosixPath, Path]:
    """Return the files of a script by their place in its payload folder.

    Raises:
        PydanticCustomError: A pattern without a file, or two files for one place; the message says which.
    """
    found: dict[PurePosixPath, Path] = {}
    for pattern in ([payload] if payload else []) + list(patterns):
        files = list(matches(folder, pattern))
        if not files:
            raise mistake(f"no file matches {pattern!r} in {folder}", "check the spelling; paths start there")
        for where, file in files:
            other = found.setdefault(where, file)
            if other != file and not other.samefile(file):
                raise mistake(f"both {other} and {file} would travel as {where}", "rename one of them")
    return found
