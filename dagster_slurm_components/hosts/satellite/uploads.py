"""Files that come in pieces: gathered beside their place, compared, and put there by a rename."""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from typing import Any, List, Optional, Sequence

from dagster_slurm_components.hosts.satellite.protocol import CHUNK, Result, native


def digests(paths: Sequence[str], piece: int = 0) -> Result:
    """Return the SHA-256 of each ``piece`` bytes of files, or of all of each; none of one that is no file."""
    return {"digests": [_digests(native(path), piece) for path in paths]}


def _digests(path: bytes, piece: int) -> Optional[List[str]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb", 0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        found = [_digest_of_next(file, piece)]
        while piece and file.tell() < os.fstat(descriptor).st_size:
            found.append(_digest_of_next(file, piece))
    return found


def _digest_of_next(file: Any, size: int) -> str:
    digest, left = hashlib.sha256(), size
    while not size or left:
        data = file.read(min(CHUNK, left or CHUNK))
        if not data:
            break
        digest.update(data)
        left -= len(data) if size else 0
    return digest.hexdigest()


def receive(
    blob: bytes,
    folders: Sequence[Sequence[Any]] = (),
    copies: Sequence[Sequence[str]] = (),
    pieces: Sequence[Sequence[Any]] = (),
    whole: Sequence[Sequence[Any]] = (),
) -> Result:
    """Make folders, copy, write pieces, and put files that are whole in their places; done twice it is done once.

    ``folders`` are ``[path, mode]``, made with missing parents; ``copies`` are ``[path, target]``, of which the first
    may be gone: it only has what need not be sent. ``pieces`` are ``[path, offset, length]``, of which
    the blob has the bytes, in order; ``whole`` are ``[path, target, size, sha256, mode]``. Of these the result names as
    ``wrong``, by number, those that have other bytes by now: they are removed, and their targets are as they were.
    """
    for path, mode in folders:
        _make_folder(native(path), mode)
    for path, target in copies:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(native(path), native(target))
    rest = memoryview(blob)
    for path, offset, length in pieces:
        descriptor = os.open(native(path), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            _write(descriptor, rest[:length], offset)
        finally:
            os.close(descriptor)
        rest = rest[length:]
    return {"wrong": [number for number, row in enumerate(whole) if not _publish(*row)]}


def _make_folder(path: bytes, mode: int) -> None:
    if not os.path.isdir(path):  # whose mode is its owner's affair
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path)
        os.chmod(path, mode | 0o700)


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _publish(path: str, target: str, size: int, sha256: str, mode: int) -> bool:
    place, part = native(target), native(path)
    if os.path.isdir(place):
        raise IsADirectoryError(errno.EISDIR, "a folder of that name is there: move it away", place)
    if not os.path.lexists(part):  # an earlier call did it, whose answer was lost
        return _digests(place, 0) == [sha256]
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, size)
        if _digests(part, 0) != [sha256]:
            os.unlink(part)
            return False
        os.fchmod(descriptor, mode)
        if size > CHUNK:  # of very many small files each would wait for the disk
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(part, place)
    return True
