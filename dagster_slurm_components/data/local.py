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
from dagster_slurm_components.environments.machine import digest_of, only_one, recall, remember
from dagster_slurm_components.errors import InputFailedError
from dagster_slurm_components.jobs.outputs import shown
from dagster_slurm_components.jobs.upload import Source, sources

_TICK = 2_000_000_000
"""Nanoseconds in which a file may change a second time and show it by no other time (FAT's are the longest)."""
_AT_ONCE = 8
_KIND, _FORMAT = "hashes", 2

State = tuple[int, int, int, int]
"""Size, time of the last change, inode, and the time of its own: the first time can be set back, this one can not."""
Known = tuple[State, str]
"""The state of a file, and the hash that it had then."""


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
    if not os.path.exists(path):  # Path.exists raises for names that are too long
        raise InputFailedError(f"{shown(str(path))} is not there", where=source, code="missing")
    folders, files = sources([path], "")
    top = f"/{path.name}"
    memo = digest_of(_KIND, _FORMAT, os.fsencode(path).hex())
    facts = {each.target.removeprefix(top).lstrip("/"): each for each in files}
    states = {name: _state(each, source) for name, each in facts.items()}
    known = _known(memo)
    if any(name not in known or known[name][0] != state for name, state in states.items()):
        with only_one(f"hash-{memo[:32]}"):  # many steps of a run begin at once, and may all want it
            known, now = _known(memo), time.time_ns()
            rows: Mapping[str, Known] = _hashed(facts, states, known, source)
            kept = {name: row for name, row in rows.items() if row[0][1] < now - _TICK}
            if kept != known:
                remember(_KIND, memo, kept)
    else:
        rows = known
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
                rows[name][1],
            )
            for name, each in facts.items()
        ),
        folders=tuple(name for target, _ in folders if (name := target.removeprefix(top).lstrip("/"))),
        before={name: known[name][1] for name in facts if name in known and known[name][1] != rows[name][1]},
    )


def _known(memo: str) -> Mapping[str, Known]:
    return {name: (tuple(state), sha256) for name, (state, sha256) in (recall(_KIND, memo) or {}).items()}


def _state(file: Source, source: str) -> State:
    try:
        facts = file.path.stat()
    except OSError as error:
        raise _unreadable(file, source, error) from error
    return file.size, file.mtime_ns, facts.st_ino, facts.st_ctime_ns


def _hashed(
    files: Mapping[str, Source], states: Mapping[str, State], known: Mapping[str, Known], source: str
) -> dict[str, Known]:
    """Return the hash of each file, several at a time; of one whose state is known it is that of then."""

    def hashed(name: str) -> Known:
        if name in known and known[name][0] == states[name]:
            return known[name]
        try:
            return states[name], hash_of(files[name].path)
        except OSError as error:
            raise _unreadable(files[name], source, error) from error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(files, pool.map(hashed, files), strict=True))


def _unreadable(file: Source, source: str, error: OSError) -> InputFailedError:
    return InputFailedError(f"{shown(str(file.path))} can't be read: {error.strerror}", where=source)
