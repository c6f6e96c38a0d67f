"""Which files travel with a script, and where they lie in its payload folder."""

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

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


def matching_files(folder: Path, pattern: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the files that a path or glob pattern names, each with its place in the payload folder.

    Relative patterns start at ``folder``. A folder stands for all files below it, save for caches of Python and the
    folder of git.
    """
    exact = os.path.lexists(folder / pattern)  # a file may well be called `data[1].csv`
    paths = [pattern] if exact else sorted(glob.glob(pattern, root_dir=folder, recursive=True))
    for path in paths:
        for file in _files(folder / path):
            yield place(os.path.relpath(file, folder)), file


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not _LEFT_OUT.intersection(file.relative_to(path).parts):
                yield file


def add_files(digest: Any, files: Mapping[PurePosixPath, Path]) -> None:
    """Add the places and contents of files to a hash."""
    for where, file in sorted(files.items()):
        digest.update(f"\0{where}\0".encode("utf-8", "surrogateescape"))
        now = os.stat(file)
        digest.update(_content_digest(str(file), now.st_mtime_ns, now.st_size, now.st_ino))


@lru_cache(maxsize=65_536)
def _content_digest(file: str, mtime_ns: int, size: int, inode: int) -> bytes:
    """Hash a file's content; the same file is read once, for many scripts may ship it."""
    digest = hashlib.sha256()  # Python 3.10 has no `hashlib.file_digest`
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.digest()
