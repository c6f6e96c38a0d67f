"""Brings files of this machine to a host: each whole or not at all, and from where an earlier try stopped."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.errors import DagsterSlurmError, SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.outputs import shown
from dagster_slurm_components.jobs.transfer import PIECE, batches, bring, in_order, part_name

_HINTS = {
    "disk_full": "Nothing half-made is in its place. Make room, or ask for more quota: the same command goes on.",
    "read_only": "Name a folder that can be written to there.",
    "not_permitted": "Name a folder of your own.",
}


@dataclass(frozen=True)
class Source:
    """A file of this machine, and its place on the host.

    Attributes:
        like: A file there that may have much of it already.
        sha256: What it has to be, where its place is named by that.
    """

    path: Path
    target: str
    size: int
    mtime_ns: int
    mode: int
    like: str | None = None
    sha256: str | None = None

    @property
    def part(self) -> str:
        """Where it is gathered: that of another state of the file has another name."""
        folder, _, name = self.target.rpartition("/")
        return f"{folder}/{part_name(name, self.size, self.mtime_ns)}"


def sources(paths: Sequence[Path], folder: str) -> tuple[list[tuple[str, int]], list[Source]]:
    """Return the folders with their modes, and the files, that are to be in a folder of the host.

    Raises:
        DagsterSlurmError: Something is no file or folder, such as a link to a folder; or two have one name.
    """
    folders, files = [(folder, 0o700)], list[Source]()
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DagsterSlurmError(
            f"two files are called {shown(twice)}", hint="Put them into different folders."
        )
    for path, name in zip(paths, names, strict=True):
        _look(Path(path), f"{folder.rstrip('/')}/{name}", folders, files, named=True)
    return folders, files


def _look(
    path: Path, target: str, folders: list[tuple[str, int]], files: list[Source], *, named: bool = False
) -> None:
    try:
        facts = path.stat()
        is_folder = stat.S_ISDIR(facts.st_mode)
        inside = sorted(os.listdir(path)) if is_folder else []
    except OSError as error:  # among them a link that leads to itself
        raise DagsterSlurmError(f"{shown(str(path))} can't be read: {error.strerror}") from error
    if is_folder and path.is_symlink() and not named:
        hint = "Name what it leads to by itself, or remove the link."
        raise DagsterSlurmError(f"{shown(str(path))} is a link to a folder, which is not followed", hint=hint)
    if is_folder:
        folders.append((target, stat.S_IMODE(facts.st_mode) & 0o777))
        for name in inside:
            _look(path / name, f"{target}/{name}", folders, files)
    elif stat.S_ISREG(facts.st_mode):
        files.append(
            Source(path, target, facts.st_size, facts.st_mtime_ns, stat.S_IMODE(facts.st_mode) & 0o777)
        )
    else:
        raise DagsterSlurmError(f"{shown(str(path))} is no file", hint="Leave it out.")


def lacking(satellite: Satellite, files: Sequence[Source], *, force: bool) -> list[Source]:
    """Return which files are not on the host yet.

    Raises:
        DagsterSlurmError: A file with other content is there, and is not to be replaced.
    """
    wanted = []
    groups = list(batches(files, lambda each: 0))
    for group, there in zip(
        groups, in_order(partial(_there, satellite, each) for each in groups), strict=True
    ):
        for each, (exists, equal) in zip(group, there, strict=True):
            if exists and not equal and not force:
                text = f"there is another {shown(each.target)} already"
                raise DagsterSlurmError(
                    text, where=satellite.host.name, hint="`--force` replaces such files."
                )
            if not equal:
                wanted.append(each)
    return wanted


def _there(satellite: Satellite, files: Sequence[Source]) -> list[tuple[bool, bool]]:
    """Return of each file whether something is in its place, and whether that is the same."""
    found = satellite.read([FileRead(each.target, 0, 0) for each in files])
    pairs = list(zip(files, found, strict=True))
    alike = [each for each, there in pairs if there.exists and not there.error and there.size == each.size]
    hashes = satellite.digests([each.target for each in alike]) if alike else []
    equal = {each for each, found in zip(alike, hashes, strict=True) if found == [_hashed(each)]}
    return [(there.exists, each in equal) for each, there in pairs]


def upload(
    satellite: Satellite,
    folders: Sequence[tuple[str, int]],
    files: Sequence[Source],
    *,
    got: Callable[[int], None] = lambda size: None,
    done: Callable[[Source], None] = lambda source: None,
) -> None:
    """Bring files to a host, each whole or not at all; ``got`` hears of bytes, ``done`` of each file.

    Raises:
        HostError: The host gives no answer, or refuses; what has come stays, for the next try.
        DagsterSlurmError: A file is gone from this machine, or has changed on its way.
    """
    way = _Upload(satellite, got)
    try:
        for group in batches(folders, lambda each: 0):
            satellite.receive(folders=group)
        wrong = bring(files, lambda each: each.size, large=way.one, small=way.several, got=got, done=done)
    except SatelliteError as error:
        raise DagsterSlurmError(error.message, where=error.where, hint=_HINTS.get(error.code)) from error
    if wrong:
        text = f"{shown(wrong[0].target)} is brought by somebody else, too"
        raise DagsterSlurmError(text, where=satellite.host.name, hint="Wait for their end.")


@dataclass(frozen=True)
class _Upload:
    """Files on their way to a host."""

    satellite: Satellite
    got: Callable[[int], None]

    def several(self, batch: list[Source]) -> list[Source]:
        """Bring small files together; return those that the host could not put in their places."""
        contents = [b"".join(_pieces(each)) for each in batch]
        for each, data in zip(batch, contents, strict=True):
            if each.sha256:
                _compare(each, hashlib.sha256(data).hexdigest())
        pieces = [(each.part, 0, each.size) for each in batch]
        rows = [(each.part, each.target, each.size, 0, each.mode) for each in batch]
        refused = self.satellite.receive(b"".join(contents), pieces=pieces, whole=rows).wrong
        return [batch[number] for number in refused]

    def one(self, source: Source) -> bool:
        """Bring a large file, several pieces at a time; return whether the host could put it in its place."""
        inode, there = self._sent_before(source)
        inodes, digest = {inode} - {0}, hashlib.sha256()

        def calls() -> Iterator[Callable[[], tuple[int, int]]]:
            for number, data in enumerate(_pieces(source)):
                if source.sha256:
                    digest.update(data)
                known = there[number] if number < len(there) else None
                yield partial(self._piece, source, number * PIECE, data, known)

        for size, inode in in_order(calls()):
            self.got(size)
            inodes |= {inode} - {0}
        if source.sha256:
            _compare(source, digest.hexdigest())
        if len(inodes) > 1:  # somebody else has put the file in its place meanwhile
            return False
        row = (source.part, source.target, source.size, inodes.pop(), source.mode)
        return not self.satellite.receive(whole=[row]).wrong

    def _sent_before(self, source: Source) -> tuple[int, list[str]]:
        """Return the inode of what there is of a file, if anything, and the hashes of its pieces."""
        (part,) = self.satellite.read([FileRead(source.part, 0, 0)])
        if source.like and not part.exists:
            self.satellite.receive(copies=[(source.like, source.part)])
            (part,) = self.satellite.read([FileRead(source.part, 0, 0)])
        return part.inode, (self.satellite.digests([source.part], PIECE)[0] or []) if part.size else []

    def _piece(self, source: Source, offset: int, data: bytes, known: str | None) -> tuple[int, int]:
        """Send a piece unless it is there; return its bytes, and the inode it was written to."""
        if known and known == hashlib.sha256(data).hexdigest():
            return len(data), 0
        found = self.satellite.receive(data, pieces=[(source.part, offset, len(data))])
        return len(data), found.inodes[0]


def _pieces(source: Source) -> Iterator[bytes]:
    """Yield what is in a file, which has to stay what it was when it was looked at."""
    try:
        with source.path.open("rb", 0) as file:
            left = source.size
            while left:
                data = file.read(min(PIECE, left))
                if not data:
                    break
                left -= len(data)
                yield data
            facts = os.fstat(file.fileno())
    except OSError as error:
        text = f"{shown(str(source.path))} can't be read any more: {error.strerror}"
        raise DagsterSlurmError(text, hint="Nothing of it is in its place on the host.") from error
    if (facts.st_size, facts.st_mtime_ns) != (source.size, source.mtime_ns):
        raise _changed(source)


def _compare(source: Source, sha256: str) -> None:
    """Compare what is sent with what was to be sent."""
    if source.sha256 != sha256:
        raise _changed(source)


def _changed(source: Source) -> DagsterSlurmError:
    hint = "Nothing of it is in its place on the host. Wait for whoever writes to it, and do the same again."
    return DagsterSlurmError(f"{shown(str(source.path))} changed while it was sent", hint=hint)


def _hashed(source: Source) -> str:
    try:
        return hash_of(source.path)
    except OSError as error:
        raise DagsterSlurmError(f"{shown(str(source.path))} can't be read: {error.strerror}") from error
