"""Files that come in pieces: gathered beside their place, and put there by a rename.

That what comes is what was sent is ssh's affair, which signs each packet: to read it back and hash it took a fifth of
the time of a large file. That all pieces of a file went into the one that is put in its place, whoever else brings
the same, is told by its inode.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from typing import Any, List, Optional, Sequence

from dagster_slurm_components.hosts.satellite.files import write_at
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
    may be gone: it only has what need not be sent. ``pieces`` are ``[path, offset, length]``, of which the blob
    has the bytes, in order. ``whole`` are ``[path, target, size, inode, mode]`` of files all of whose pieces are there;
    without an inode (0) it is this very call that writes them.

    Returns:
        ``inodes`` of the files that the pieces were written to; and as ``wrong``, by number, those of the ``whole``
        ones whose path leads to another file by now, as somebody else has put that in its place: they are left alone.
    """
    for path, mode in folders:
        _make_folder(native(path), mode)
    for path, target in copies:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(native(path), native(target))
    rest, inodes = memoryview(blob), []
    for path, offset, length in pieces:
        inodes.append(_write(native(path), rest[:length], offset))
        rest = rest[length:]
    written = dict(zip((row[0] for row in pieces), inodes))
    wrong = [
        number
        for number, (path, target, size, inode, mode) in enumerate(whole)
        if not _publish(native(path), native(target), size, inode or written[path], mode)
    ]
    return {"inodes": inodes, "wrong": wrong}


def _make_folder(path: bytes, mode: int) -> None:
    if not os.path.isdir(path):  # whose mode is its owner's affair
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path)
        os.chmod(path, mode | 0o700)


def _write(path: bytes, data: memoryview, offset: int) -> int:
    """Write a piece of a file, and return its inode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        write_at(descriptor, data, offset)
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def _publish(part: bytes, place: bytes, size: int, inode: int, mode: int) -> bool:
    if os.path.isdir(place):
        raise IsADirectoryError(errno.EISDIR, "a folder of that name is there: move it away", place)
    if not os.path.lexists(part):  # an earlier call did it, whose answer was lost
        return os.path.lexists(place) and os.lstat(place).st_ino == inode
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_ino != inode:
            return False
        os.ftruncate(descriptor, size)
        os.fchmod(descriptor, mode)
        if size > CHUNK:  # of very many small files each would wait for the disk
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(part, place)
    return True
