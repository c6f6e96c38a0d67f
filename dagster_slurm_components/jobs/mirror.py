"""Copies on this machine of files that grow on a host: each look brings what was added, and nothing twice.

What is here says where to go on, so that another process does so, too. A copy is added to only while its beginning and
the last bytes of it are those of the file; of a file that was cut, replaced or written anew another copy is made.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileRead, Match
from dagster_slurm_components.hosts.satellite.files import write_at
from dagster_slurm_components.jobs.download import open_below
from dagster_slurm_components.jobs.outputs import parse_file
from dagster_slurm_components.jobs.transfer import PIECE, batches

_FILES = 2000
_ENTRIES = 20_000
"""Files that are brought, and entries of folders that are looked at: each is an operation of the host's file system."""
_LOOK = 64 * 2**20
"""Bytes that one look brings, but for the last one."""
_COMPARED = 4096


@dataclass
class Growing:
    """A file of the host, and how much of it is here."""

    match: Match
    offset: int

    @property
    def name(self) -> str:
        """Its name below the folder of copies."""
        return self.match.name

    @property
    def left(self) -> int:
        """How many bytes are not here."""
        return self.match.size - self.offset


@dataclass(frozen=True)
class Brought:
    """What a look has brought: the files and folders right below the folder of copies, and if ``max`` was reached.

    ``operations`` are those of the host's file system that it took.
    """

    changed: frozenset[str] = frozenset()
    operations: int = 0
    full: bool = False


@dataclass
class Mirror:
    """Keeps copies of what a pattern stands for in a folder of a host.

    Attributes:
        source: The host's folder.
        folder: Where the copies lie.
        most: The most bytes that are brought, those that are there already among them.
    """

    satellite: Satellite
    source: str
    pattern: str
    folder: Path
    most: int
    _seen: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Of each file that was brought: the inode, how much of it is here, and its time."""
    _brought: int = 0

    def here(self) -> tuple[int, int]:
        """Return how many copies there are, and their bytes."""
        sizes = [each.lstat().st_size for each in self.folder.rglob("*") if each.is_file()]
        return len(sizes), sum(sizes)

    def look(self, stop: Event, *, last: bool = False) -> Brought:
        """Bring what is new; a ``last`` look brings all, and compares each copy with its file by their hashes.

        Once ``stop`` is set it ends before its next call to the host.

        Raises:
            HostError: The host can't be reached, or there are too many files.
            DagsterSlurmError: A copy's place leads out of the folder.
            OSError: The copies can't be written.
        """
        if not self._seen:  # the copies of an earlier process count, too
            self._brought = max(self._brought, self.here()[1])
        matches, looked = self.satellite.matches(self.source, self.pattern, files=_FILES, entries=_ENTRIES)
        news = [each for each in matches if self._seen.get(each.name) != _state(each)]
        files = self._checked([self._growing(each) for each in news])
        changed, full = self._bring(files, self.most if last else _LOOK, stop)
        if last and not stop.is_set():
            known = [Growing(each, self._offset(each)) for each in matches]
            other = [each for each in known if not each.left and each.match.size]
            again, more = self._bring(self._unlike(other), self.most, stop)
            changed, full = changed | again, full or more
        return Brought(frozenset(changed), looked + 2 * len(news) + len(matches), full)

    def _growing(self, match: Match) -> Growing:
        parse_file(match.name, match.size, None)  # no name of a host leads out of the folder
        offset = self._offset(match)
        inode, here, mtime = self._seen.get(match.name, (match.inode, offset, match.mtime_ns))
        rewritten = match.size == here == offset and mtime != match.mtime_ns
        return Growing(match, 0 if inode != match.inode or offset > match.size or rewritten else offset)

    def _offset(self, match: Match) -> int:
        path = self.folder / match.name
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else 0

    def _checked(self, files: Sequence[Growing]) -> Sequence[Growing]:
        """Look whether copies are the beginnings of their files; of those that are not, nothing is here."""
        for group in batches([each for each in files if each.offset], lambda each: 2 * _COMPARED):
            ends = [
                (each, begin, min(_COMPARED, each.offset))
                for each in group
                for begin in (0, max(0, each.offset - _COMPARED))
            ]
            reads = [FileRead(each.match.path, begin, size) for each, begin, size in ends]
            there = self.satellite.fetch(reads, total=PIECE)
            for (each, begin, size), found in zip(ends, there, strict=True):
                if each.offset and found.data != self._copied(each, begin, size):
                    each.offset = 0
        return files

    def _copied(self, each: Growing, begin: int, size: int) -> bytes:
        with (self.folder / each.name).open("rb", 0) as file:
            return os.pread(file.fileno(), size, begin)

    def _unlike(self, files: Sequence[Growing]) -> list[Growing]:
        """Return the files whose copies have other bytes; nothing of them is here."""
        unlike = []
        for group in batches(files, lambda each: each.match.size):
            hashes = self.satellite.digests([each.match.path for each in group])
            for each, found in zip(group, hashes, strict=True):
                if found is not None and found != [hash_of(self.folder / each.name)]:
                    each.offset = 0
                    unlike.append(each)
        return unlike

    def _bring(self, files: Sequence[Growing], most: int, stop: Event) -> tuple[set[str], bool]:
        """Bring what is left of files, so many bytes at most; return what has changed, and if ``max`` was reached."""
        changed, room = set[str](), min(most, self.most - self._brought)
        for group in batches(sorted(files, key=lambda each: each.left), lambda each: each.left):
            pending = [each for each in group if each.left or not each.match.size]
            while pending and room > 0 and not stop.is_set():
                reads = [FileRead(each.match.path, each.offset, each.left) for each in pending]
                found = self.satellite.fetch(reads, total=PIECE)
                for each, read in zip(pending, found, strict=True):
                    if read.exists and not read.error and room > 0:
                        room -= self._take(each, read.data[:room])
                        changed.add(each.name.partition("/")[0])
                # Of one that gives nothing more, as it was cut or removed just now, the next look will tell.
                pending = [each for each, read in zip(pending, found, strict=True) if read.data and each.left]
        for each in files:
            self._seen[each.name] = (each.match.inode, each.offset, each.match.mtime_ns)
        return changed, self._brought >= self.most and any(each.left for each in files)

    def _take(self, each: Growing, data: bytes) -> int:
        """Add bytes to a copy; whoever reads the old one, where another begins, keeps that."""
        if not each.offset:
            (self.folder / each.name).unlink(missing_ok=True)
        descriptor = open_below(self.folder / each.name, self.folder)
        try:
            write_at(descriptor, memoryview(data), each.offset)
        finally:
            os.close(descriptor)
        each.offset += len(data)
        self._brought += len(data)
        return len(data)


def _state(match: Match) -> tuple[int, int, int]:
    return match.inode, match.size, match.mtime_ns
