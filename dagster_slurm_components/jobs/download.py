"""Brings files of a host to this machine: goes on where an earlier try stopped, and checks hashes."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead
from dagster_slurm_components.hosts.satellite.files import write_at
from dagster_slurm_components.jobs.outputs import ALL_FILES, MADE, File, Made, parse_files, parse_made, shown
from dagster_slurm_components.jobs.transfer import PIECE, bring, in_order, part_name

_LISTED = 8 * 2**20
"""Bytes of a list of files that one call reads."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of the host, and its place on this machine: below ``root`` there, and below ``folder`` here.

    There may be 100,000 of them, so that they hold little: with paths of their own they took 60 MiB.
    """

    file: File
    root: str
    folder: Path

    @property
    def source(self) -> str:
        """Where it is on the host."""
        return f"{self.root}/{self.file.name}"

    @property
    def target(self) -> Path:
        """Where it is to be here."""
        return self.folder / self.file.name

    @property
    def part(self) -> Path:
        """Where it is gathered: of other content the name is another."""
        return self.target.with_name(part_name(self.target.name, self.file.size, self.file.sha256))


def read_outputs(satellite: Satellite, run_dir: str) -> tuple[Made, ...]:
    """Return what a job has told of its outputs, each with all its files."""
    made = parse_made(_whole(satellite, f"{run_dir}/{MADE}"), run_dir)
    if any(each.count > len(each.files) for each in made):
        return parse_files(made, _whole(satellite, f"{run_dir}/{ALL_FILES}"))
    return made


def _whole(satellite: Satellite, path: str) -> bytes:
    data = b""
    while True:
        (read,) = satellite.read([FileRead(path, len(data), _LISTED)])
        data += read.data
        if not read.data or len(data) >= read.size:
            return data


def plan(made: Made, folder: Path, *, force: bool) -> tuple[list[Wanted], list[Wanted]]:
    """Return which files of an output are to be brought into a folder, and which are there already.

    Raises:
        DagsterSlurmError: A file with other content is there, and is not to be replaced.
    """
    top = folder.resolve()
    every = [Wanted(file, made.root, top) for file in made.files]
    there = [each for each in every if os.path.lexists(each.target)]
    equal = {each for each in there if _is_equal(each)}
    other = [each for each in there if each not in equal]
    if other and not force:
        hint = "`--force` replaces such files, `-o DIR` brings them elsewhere."
        raise DagsterSlurmError(f"there is another {shown(str(other[0].target))} already", hint=hint)
    if folders := [each.target for each in other if each.target.is_dir()]:
        raise DagsterSlurmError(f"{shown(str(folders[0]))} is a folder", hint="Move it away.")
    return [each for each in every if each not in equal], [each for each in there if each in equal]


def _is_equal(wanted: Wanted) -> bool:
    if not wanted.target.is_file() or wanted.target.stat().st_size != wanted.file.size:
        return False
    return wanted.file.sha256 in (None, hash_of(wanted.target))


def download(
    satellite: Satellite,
    files: Sequence[Wanted],
    folder: Path,
    *,
    got: Callable[[int], None] = lambda size: None,
    done: Callable[[Wanted], None] = lambda wanted: None,
) -> None:
    """Bring files into a folder, each whole or not at all; ``got`` hears of bytes, ``done`` of each file.

    Raises:
        HostError: The host gives no answer; what has come stays, for the next try.
        DagsterSlurmError: A file has changed on the host, or is gone; its place here leads out of the folder, or can't
            be written to.
    """
    way = _Download(satellite, folder, got)
    try:
        got(sum(each.part.stat().st_size for each in files if each.part.is_file()))
        wrong = bring(
            files,
            lambda each: each.file.size,
            large=way.one,
            small=way.several,
            got=got,
            done=done,
        )
    except OSError as error:
        text = f"{shown(str(error.filename or folder))} can't be written on this machine: {error.strerror}"
        raise DagsterSlurmError(text, hint="What has come is kept; the same again goes on.") from error
    if wrong:
        raise _changed(wrong[0], satellite.host.name)


def link(files: Sequence[Wanted]) -> list[Wanted]:
    """Give files of this machine a second name, where that can be done and they are what they were; return the others.

    Raises:
        OSError: Their folder can't be made.
    """
    others = []
    for each in files:
        each.target.parent.mkdir(parents=True, exist_ok=True)
        linked = each.part.with_suffix(".link")
        try:
            linked.unlink(missing_ok=True)
            os.link(each.source, linked)
            if each.file.sha256 not in (None, hash_of(linked)):
                raise _changed(each, "local")
            os.replace(linked, each.target)
        except OSError:  # of another file system, or gone: copying will tell
            others.append(each)
        finally:
            linked.unlink(missing_ok=True)
    return others


@dataclass(frozen=True)
class _Download:
    """Files on their way into a folder."""

    satellite: Satellite
    folder: Path
    got: Callable[[int], None]

    def several(self, batch: list[Wanted]) -> list[Wanted]:
        """Bring small files together; return those of them that came with another hash."""
        with ExitStack() as stack:
            parts = [stack.enter_context(_opened(each, self.folder)) for each in batch]
            while lacking := [part for part in parts if part.left]:
                reads = [FileRead(part.wanted.source, part.offset, part.left) for part in lacking]
                for part, data in zip(lacking, self.satellite.fetch(reads, total=PIECE), strict=True):
                    part.take(self._checked(part.wanted, data))
            return [part.wanted for part in parts if not part.publish()]

    def one(self, wanted: Wanted) -> bool:
        """Bring a large file, several pieces at a time, written in order; return whether its hash is right."""
        size = wanted.file.size
        with _opened(wanted, self.folder) as part:
            pieces = range(part.offset, size, PIECE)
            for data in in_order(
                partial(self._piece, wanted, offset, min(PIECE, size - offset)) for offset in pieces
            ):
                part.take(data)
                self.got(len(data))
            return part.publish()

    def _piece(self, wanted: Wanted, offset: int, size: int) -> bytes:
        found = b""
        while len(found) < size:
            read = FileRead(wanted.source, offset + len(found), size - len(found))
            found += self._checked(wanted, self.satellite.fetch([read], total=PIECE)[0])
        return found

    def _checked(self, wanted: Wanted, read: FileData) -> bytes:
        if not read.exists or read.error or read.size != wanted.file.size:
            raise _changed(wanted, self.satellite.host.name, read.error)
        return read.data


class _Part:
    """A file that is being gathered: its beginning is here."""

    def __init__(self, wanted: Wanted, descriptor: int) -> None:
        self.wanted = wanted
        self._descriptor = descriptor
        self.offset = os.fstat(descriptor).st_size
        if self.offset > wanted.file.size:
            os.truncate(descriptor, 0)
            self.offset = 0
        self._digest = hashlib.sha256()
        for begin in range(0, self.offset, PIECE):
            self._digest.update(os.pread(descriptor, min(PIECE, self.offset - begin), begin))

    @property
    def left(self) -> int:
        return self.wanted.file.size - self.offset

    def take(self, data: bytes) -> None:
        self._digest.update(data)
        write_at(self._descriptor, memoryview(data), self.offset)
        self.offset += len(data)

    def publish(self) -> bool:
        """Put the file in its place, or empty it where its hash is wrong."""
        if self.wanted.file.sha256 not in (None, self._digest.hexdigest()):
            os.truncate(self._descriptor, 0)
            return False
        if self.wanted.file.size > PIECE:  # of very many small files each would wait for the disk
            os.fsync(self._descriptor)
        os.replace(self.wanted.part, self.wanted.target)
        return True


def open_below(path: Path, folder: Path) -> int:
    """Open a file to write, which is below a folder for sure; what is missing is made.

    Raises:
        DagsterSlurmError: A link leads out of the folder.
        OSError: It can't be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DagsterSlurmError(f"{shown(str(path.parent))} leads out of {folder}", hint="Remove that link.")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


@contextmanager
def _opened(wanted: Wanted, folder: Path) -> Iterator[_Part]:
    """Open what there is of a file, for this process alone."""
    descriptor = open_below(wanted.part, folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"another process is bringing {shown(str(wanted.target))}"
            raise DagsterSlurmError(text, hint="Wait for its end.") from None
        yield _Part(wanted, descriptor)
    finally:
        os.close(descriptor)


def _changed(wanted: Wanted, host: str, why: str | None = None) -> DagsterSlurmError:
    text = f"{shown(wanted.source)} is not what it was when its job ended{f': {why}' if why else ''}"
    hint = "Somebody changed or removed it; a later job may have published another one to the same place."
    return DagsterSlurmError(text, where=host, hint=hint)
