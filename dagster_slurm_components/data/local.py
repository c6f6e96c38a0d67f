"""Files and folders of this machine as content: hashed once, and again only where they have changed since."""

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dagster_slurm_components.data.host.content import EXECUTABLE, PLAIN, tree_key
from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.environments.machine import digest_of, recall, remember
from dagster_slurm_components.errors import InputFailedError
from dagster_slurm_components.jobs.outputs import shown
from dagster_slurm_components.jobs.upload import Source, sources

_TICK = 2_000_000_000
"""Nanoseconds in which a file may change a second time and show it by no other time (FAT's are the longest)."""
_AT_ONCE = 8
_KIND = "hashes"

Known = tuple[int, int, int, str]
"""Size, time of the last change and inode of a file, and the hash that it had then."""


@dataclass(frozen=True)
class ContentFile:
    """A file of an input: its name below the input's folder, or nothing where it is the input itself."""

    name: str
    path: Path
    size: int
    mtime_ns: int
    kind: str
    sha256: str

    @property
    def object(self) -> str:
        """Where it is in a store of inputs: what may be executed is another object."""
        return f"objects/{self.sha256[:2]}/{self.sha256}{self.kind}"


@dataclass(frozen=True)
class Content:
    """A file or folder, by what is in it.

    Attributes:
        name: What it is called, and will be.
        source: What a user calls it.
        folders: The names of all folders below it.
        before: The hash that files had when they were hashed earlier, by name, where that was another.
    """

    name: str
    source: str
    is_folder: bool
    files: tuple[ContentFile, ...]
    folders: tuple[str, ...]
    before: Mapping[str, str]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """What it consists of: name, kind and hash of each file."""
        return [(each.name, each.kind, each.sha256) for each in self.files]

    @cached_property
    def key(self) -> str:
        """Hash of its name and all that is in it."""
        return tree_key(self.name, self.rows, self.folders, self.is_folder)

    @property
    def bytes(self) -> int:
        """How large it is."""
        return sum(each.size for each in self.files)


def read_content(path: Path, source: str) -> Content:
    """Return what a file or folder is; only files that have changed since they were hashed last are read.

    Raises:
        InputFailedError: It is not there, can't be read, or holds what can't travel.
    """
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise InputFailedError(f"{shown(str(path))} is not there", where=source, code="missing")
    folders, files = sources([path], "")
    top = f"/{path.name}"
    memo = digest_of(_KIND, os.fsencode(path).hex())
    known: Mapping[str, Known] = {name: tuple(row) for name, row in (recall(_KIND, memo) or {}).items()}
    facts = {each.target.removeprefix(top).lstrip("/"): each for each in files}
    now = time.time_ns()

    def hashed(item: tuple[str, Source]) -> Known:
        name, each = item
        state = (each.size, each.mtime_ns, each.path.stat().st_ino)
        if name in known and known[name][:3] == state:
            return known[name]
        try:
            return (*state, hash_of(each.path))
        except OSError as error:
            text = f"{shown(str(each.path))} can't be read: {error.strerror}"
            raise InputFailedError(text, where=source) from error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = dict(zip(facts, pool.map(hashed, facts.items()), strict=True))
    kept = {name: row for name, row in rows.items() if row[1] < now - _TICK}
    if kept != known:
        remember(_KIND, memo, kept)
    return Content(
        name=path.name,
        source=source,
        is_folder=path.is_dir(),
        files=tuple(
            ContentFile(
                name,
                each.path,
                each.size,
                each.mtime_ns,
                EXECUTABLE if each.mode & 0o100 else PLAIN,
                rows[name][3],
            )
            for name, each in facts.items()
        ),
        folders=tuple(name for target, _ in folders if (name := target.removeprefix(top).lstrip("/"))),
        before={name: known[name][3] for name in rows if name in known and known[name][3] != rows[name][3]},
    )
