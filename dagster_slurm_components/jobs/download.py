"""Brings files of a host to this machine: goes on where an earlier try stopped, and checks hashes."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dagster_slurm_components.environments.host.tools import hash_of
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead
from dagster_slurm_components.jobs.outputs import ALL_FILES, MADE, File, Made, parse_files, parse_made, shown

_PIECE = 8 * 2**20
"""Bytes that one call reads, of one file or of many."""
_MANY = 128


@dataclass(frozen=True)
class Wanted:
    """A file of the host, and its place on this machine."""

    file: File
    source: str
    target: Path

    @property
    def part(self) -> Path:
        """Where it is gathered: of other content the name is another."""
        content = (self.file.sha256 or "")[:16]
        return self.target.with_name(f".{self.target.name[:64]}.{self.file.size}-{content}.part")


def read_outputs(satellite: Satellite, run_dir: str) -> tuple[Made, ...]:
    """Return what a job has told of its outputs, each with all its files."""
    made = parse_made(_whole(satellite, f"{run_dir}/{MADE}"), run_dir)
    if any(each.count > len(each.files) for each in made):
        return parse_files(made, _whole(satellite, f"{run_dir}/{ALL_FILES}"))
    return made


def _whole(satellite: Satellite, path: str) -> bytes:
    data = b""
    while True:
        (read,) = satellite.read([FileRead(path, len(data), _PIECE)])
        data += read.data
        if not read.data or len(data) >= read.size:
            return data


def plan(made: Made, folder: Path, *, force: bool) -> tuple[list[Wanted], list[Wanted]]:
    """Return which files of an output are to be brought into a folder, and which are there already.

    Raises:
        DagsterSlurmError: A file with other content is there, and is not to be replaced.
    """
    top = folder.resolve()
    every = [Wanted(file, made.file(file.name), top / file.name) for file in made.files]
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
        DagsterSlurmError: A file has changed on the host, or is gone; or its place here leads out of the folder.
    """
    waiting, again = list(files), set[Wanted]()
    got(sum(each.part.stat().st_size for each in files if each.part.is_file()))
    while waiting:
        with ExitStack() as stack:
            parts = []
            left = _PIECE
            for each in waiting[:_MANY]:
                parts.append(part := stack.enter_context(_opened(each, folder)))
                left -= part.left
                if left <= 0:
                    break
            reads = [FileRead(part.wanted.source, part.offset, min(_PIECE, part.left)) for part in parts]
            for part, data in zip(parts, satellite.read(reads, total=_PIECE), strict=True):
                part.take(data, satellite.host.name)
                got(len(data.data))
            for part in parts:
                if part.left == 0 and part.publish():
                    waiting.remove(part.wanted)
                    done(part.wanted)
                elif part.left == 0 and part.wanted in again:
                    raise _changed(part.wanted, satellite.host.name)
                elif part.left == 0:  # what an earlier try had was of something else
                    again.add(part.wanted)
                    os.truncate(part.wanted.part, 0)


class _Part:
    """A file that is being gathered."""

    def __init__(self, wanted: Wanted, descriptor: int) -> None:
        self.wanted = wanted
        self._descriptor = descriptor
        self.offset = os.fstat(descriptor).st_size
        if self.offset > wanted.file.size:
            os.truncate(descriptor, 0)
            self.offset = 0

    @property
    def left(self) -> int:
        return self.wanted.file.size - self.offset

    def take(self, read: FileData, host: str) -> None:
        if not read.exists or read.error or read.size != self.wanted.file.size:
            raise _changed(self.wanted, host, read.error)
        os.pwrite(self._descriptor, read.data, self.offset)
        self.offset += len(read.data)

    def publish(self) -> bool:
        os.fsync(self._descriptor)
        if self.wanted.file.sha256 not in (None, hash_of(self.wanted.part)):
            return False
        os.replace(self.wanted.part, self.wanted.target)
        return True


@contextmanager
def _opened(wanted: Wanted, folder: Path) -> Iterator[_Part]:
    """Open what there is of a file, for this process alone."""
    parent = wanted.part.parent
    parent.mkdir(parents=True, exist_ok=True)
    if not parent.resolve().is_relative_to(folder.resolve()):
        raise DagsterSlurmError(f"{shown(str(parent))} leads out of {folder}", hint="Remove that link.")
    descriptor = os.open(wanted.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
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
