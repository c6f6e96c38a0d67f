"""What is in an archive: members of tar and zip, read one after the other, told alike."""

import functools
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import IO, Any, Callable, Iterator, NamedTuple

from dagster_slurm_components.data.host.content import EXECUTABLE, LINK, PLAIN
from dagster_slurm_components.environments.host.tools import CHUNK, Problem

try:
    from lzma import LZMAError
except ImportError:  # this Python was built without it, and says so when it meets an archive
    LZMAError = EOFError  # type: ignore[misc, assignment]

_BROKEN_HEADERS = (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError)  # type: ignore[attr-defined]
FOLDER, SAME = "folder", "same"
_LONGEST_HEADER = 1024 * 1024
_IN_MEMORY = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""The types of members that ``tarfile`` reads as a whole, for they are parts of a header."""
# RuntimeError: encrypted; NotImplementedError: a compression that is not known; ValueError: text, numbers, positions.
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
    struct.error,
)
"""What the standard library raises for what is no archive, or a broken one."""


class Member(NamedTuple):
    """Something in an archive: a kind of file, with what opens it; a folder; a link, or the ``same`` as ``target``."""

    name: str
    kind: str
    target: str = ""
    open: Callable[[], Any] = lambda: None


def members_of(archive: bytes) -> Iterator[Member]:
    """Yield what an archive holds, in its order; one of ``BROKEN`` is raised where that can't be told."""
    with open(archive, "rb") as file:
        begin = file.read(4)
        file.seek(0)
        if begin[:2] == b"PK":
            yield from _of_zip(file)
            return
        try:
            yield from _of_tar(file)
        except tarfile.ReadError as error:
            if begin == b"\x28\xb5\x2f\xfd":
                raise tarfile.ReadError(
                    "this Python knows no zstd (3.14 does): pack it anew, as .tar.xz or .zip"
                )
            raise tarfile.ReadError("%s; tar (gz, bz2, xz) and zip are known" % error)


def _of_zip(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16  # zero where it was made without modes
            if info.filename.endswith("/"):
                yield Member(info.filename, FOLDER)
            elif stat.S_ISLNK(mode):
                if info.file_size > _LONGEST_HEADER:
                    raise _refused(info.filename)
                target = archive.read(info).decode("utf-8", "surrogateescape")
                yield Member(info.filename, LINK, target)
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _refused(info.filename)
            else:
                kind = EXECUTABLE if mode & stat.S_IXUSR else PLAIN
                yield Member(info.filename, kind, open=functools.partial(archive.open, info))


def _of_tar(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(
        fileobj=file, mode="r:*", tarinfo=_Strict, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        while True:
            member = archive.next()
            if member is None:
                break
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            if member.isdir():
                yield Member(member.name, FOLDER)
            elif member.issym():
                yield Member(member.name, LINK, member.linkname)
            elif member.islnk():
                yield Member(member.name, SAME, member.linkname)
            elif member.isreg() and member.size >= 0:
                kind = EXECUTABLE if member.mode & stat.S_IXUSR else PLAIN
                yield Member(member.name, kind, open=functools.partial(archive.extractfile, member))
            else:
                raise _refused(member.name)
        # To the end, where the checksum of what is compressed stands; a tar has few blocks there.
        for _ in range(8):
            if not archive.fileobj.read(CHUNK):
                break


class _Strict(tarfile.TarInfo):
    """A header; one that is broken or cut off is an error and not, as ``tarfile`` has it, the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> "_Strict":
        try:
            return super().fromtarfile(tarfile_)
        except _BROKEN_HEADERS as error:
            raise tarfile.ReadError("%s at byte %d" % (error, tarfile_.offset))

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "_Strict":
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _IN_MEMORY and found.size > _LONGEST_HEADER):
            raise tarfile.ReadError("a header of %d bytes" % found.size)
        return found


def _refused(name: str) -> Problem:
    return Problem(
        "unsafe", "the archive holds %r, which is neither a file nor a folder nor a link" % name, [name]
    )
