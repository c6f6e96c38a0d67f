"""Which files travel with a script, and where they lie in its payload folder."""

import fnmatch
import glob
import hashlib
import os
import re
import stat
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

LARGEST = 256 * 1024 * 1024
"""Bytes of files that a job may carry: they travel in one message, and are held in memory on both sides."""
TOO_LARGE = "put data into a folder on the host, which a profile's `env` can name; `exclude` leaves files out"
NEVER_SENT = (
    *(".git", ".hg", ".svn", ".env", ".env.*", ".venv", ".pixi", ".tox", ".nox", "node_modules"),
    *("__pycache__", ".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"),
    *(".dagster-slurm", ".dagster", ".dagster_home", "dagster_home", ".tmp_dagster_home_*"),
)
"""Names that stay behind unless `files` spells them out: logins, what tools make anew, Dagster's folders and ours."""

_NEVER_SENT = re.compile("|".join(map(fnmatch.translate, NEVER_SENT)))
_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a disk"}
Found = tuple[Mapping[PurePosixPath, tuple[Path, int]], tuple[str, ...]]
"""Files by their places in the payload folder, with their bytes; and, in words, what is there and can't travel."""


def place(path: str) -> PurePosixPath:
    """Return where a path of a YAML file lies below the payload folder: itself, without leading ``..``.

    >>> str(place("../../workloads/train.py"))
    'workloads/train.py'
    """
    parts = PurePosixPath(os.path.normpath(path)).parts
    while parts and parts[0] in ("..", ".", "/"):
        parts = parts[1:]
    return PurePosixPath(*parts)


def left_out(where: PurePosixPath, exclude: Sequence[str] = (), spelled: Container[str] = ()) -> bool:
    """Return whether what has this place in the payload folder stays behind, with all below it.

    ``exclude`` means it by a name or the end of a path, at any depth; or it has a name of ``NEVER_SENT``, and that is
    not ``spelled`` out.

    >>> [left_out(PurePosixPath(path), ["*.tmp", "data/raw"]) for path in ("a/b.tmp", "data/raw/c", "raw/c", "d/.env")]
    [True, True, False, True]
    """
    if any(_NEVER_SENT.match(part) and part not in spelled for part in where.parts):
        return True
    ends = [str(end) for end in map(place, exclude) if end.parts]
    return any(path.match(end) for path in (where, *where.parents) for end in ends)


def find_files(folder: Path, pattern: str, exclude: Sequence[str] = ()) -> Found:
    """Return what a path or glob pattern finds, without what stays behind (``left_out``); reads none of it.

    Relative patterns start at ``folder``. A folder stands for all files below it, and a link for what it leads to; one
    that leads back to a folder above itself is not entered.
    """
    files: dict[PurePosixPath, tuple[Path, int]] = {}
    others: dict[str, None] = {}
    parts = PurePosixPath(pattern).parts

    def at(path: Path) -> PurePosixPath:
        return place(os.path.relpath(path, folder))

    def stays(path: Path) -> bool:
        return left_out(at(path), exclude, parts)

    paths = list(_matches(folder, parts, stays))
    for path, found in (found for each in paths for found in _walk(each, stays)):
        if isinstance(found, str):
            others[f"{os.path.relpath(path, folder)} {found}"] = None
        elif found is not None:
            files[at(path)] = path, found
    for path in paths if not files and not others else ():
        what = "stays behind by `exclude` or its name" if stays(path) else "is a folder with nothing to send"
        others[f"{os.path.relpath(path, folder)} {what}"] = None
    return files, tuple(others)


def _matches(folder: Path, parts: Sequence[str], stays: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield what matches. What ``**`` stands for is walked here, for ``glob`` follows links in circles."""
    parts = () if parts == ("**",) else parts
    if os.path.lexists(folder.joinpath(*parts)):  # a file may well be called `data[1].csv`
        yield folder.joinpath(*parts)
    elif parts:
        deep, start = _walk(folder, stays) if parts[0] == "**" else (), len(str(folder))
        below = [path for path, found in deep if found is None and "/." not in str(path)[start:]]
        names = sorted(glob.glob(parts[0], root_dir=folder)) if parts[0] != "**" else []
        for path in (*below, *(folder / name for name in names)):
            yield from _matches(path, parts[1:], stays)


def _walk(
    path: Path, stays: Callable[[Path], bool], above: frozenset[tuple[int, int]] | None = None
) -> Iterator[tuple[Path, int | str | None]]:
    """Yield what lies at a path and below: a file's bytes, None for a folder, or why it can't travel."""
    if stays(path):
        return
    try:
        facts = path.stat()
        kind = stat.S_IFMT(facts.st_mode)
        names = sorted(os.listdir(path)) if kind == stat.S_IFDIR else []
    except OSError as error:
        link = f"is a link to {os.readlink(path)}, which leads nowhere" if path.is_symlink() else ""
        yield path, link or f"can't be read: {error.strerror}"
        return
    if kind != stat.S_IFDIR:
        yield path, f"is {_KINDS[kind]}" if kind in _KINDS else facts.st_size
        return
    if above is None:
        parents = [each.stat() for each in Path(os.path.abspath(path)).parents if each.exists()]
        above = frozenset((each.st_dev, each.st_ino) for each in parents)
    ours = {"job.sh", "ledger"} <= set(
        names
    )  # a run directory, in a workdir of any name: it may hold secrets
    if (itself := (facts.st_dev, facts.st_ino)) not in above and not ours:
        yield path, None
        for name in names:
            yield from _walk(path / name, stays, above | {itself})


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
