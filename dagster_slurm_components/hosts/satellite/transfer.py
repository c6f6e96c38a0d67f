"""Files on request: read from offsets, written whole, removed; folders made, disks measured."""

import errno
import os
import stat
from typing import Any, List, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.calls import Disk, Match
from dagster_slurm_components.hosts.satellite.files import make_own_folder, remove_tree, write_atomically
from dagster_slurm_components.hosts.satellite.found import CrowdedError, Found
from dagster_slurm_components.hosts.satellite.leases import renew
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, as_text, native


def read(
    files: Sequence[Sequence[Any]], total: int = 16 * 1024 * 1024, leases: Sequence[Sequence[Any]] = ()
) -> Tuple[Result, bytes]:
    """Read many files from offsets; what a file lacks or refuses is its own status, never the call's error.

    The ``total`` bytes of the answer are shared fairly: one endless log can't starve another job's messages. With them
    the ``leases`` of the jobs that the reader follows are renewed: reading is a sign of life.

    Returns:
        ``leases``: ``[epoch, state]`` each (``leases.renew``), and ``files``: ``[status, size, inode, mtime, n]`` each,
        with ``n`` bytes in the blob, in order. The status is ``ok``, ``missing`` or the reason.
    """
    if total < len(files):
        raise Failure("bad_request", f"a total of {total} bytes is too little for {len(files)} files")
    paths = [native(path) for path, _, _ in files]
    rows = [_read(path)[0] for path in paths]
    wishes = [
        max(0, min(int(limit), row[1] - int(offset))) if row[0] == "ok" else 0
        for row, (_, offset, limit) in zip(rows, files)
    ]
    pieces: List[bytes] = []
    for number, share in enumerate(fair_shares(wishes, total)):
        data = b""
        if share:
            rows[number], data = _read(paths[number], int(files[number][1]), share)
        rows[number].append(len(data))
        pieces.append(data)
    return {"files": rows, "leases": [renew(*lease) for lease in leases]}, b"".join(pieces)


def fetch(files: Sequence[Sequence[Any]], total: int) -> Tuple[Result, bytes]:
    """Read much, as ``read`` does: such calls share the connection's channels."""
    return read(files, total)


def fair_shares(wishes: Sequence[int], total: int) -> List[int]:
    """Divide ``total`` equally, but give nobody more than wished: what is left over goes to the others."""
    shares = [0] * len(wishes)
    left = total
    order = sorted(range(len(wishes)), key=lambda number: wishes[number])
    for position, number in enumerate(order):
        shares[number] = min(wishes[number], left // (len(order) - position))
        left -= shares[number]
    return shares


def _read(path: bytes, offset: int = 0, size: int = 0) -> Tuple[List[Any], bytes]:
    """Return ``[status, size, inode, mtime]`` of a file, and a piece of it."""
    try:
        # Opened, not only stat'ed: opening is what makes an NFS client ask the server again. Not waiting for a
        # writer, should a named pipe lie there.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            data = os.pread(descriptor, size, offset) if size else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return ["missing" if absent else str(error.strerror), 0, 0, 0.0], b""
    return ["ok", facts.st_size, facts.st_ino, facts.st_mtime], data


def matches(root: str, pattern: str, files: int, entries: int) -> Result:
    """Return the files (``calls.Match``) that a pattern stands for in a folder, and how many entries were looked at.

    Raises Failure ``too_many`` where there are more than so many ``files``, or ``entries`` of folders.
    """
    try:
        found = Found(native(root), pattern, entries)
    except CrowdedError:
        raise Failure(
            "too_many", f"{pattern} has more than {entries:,} files and folders to look at: narrow it"
        ) from None
    if len(found.files) > files:
        raise Failure("too_many", f"{pattern} stands for more than {files:,} files: narrow it")
    rows = []
    for name, path in sorted(found.files.items()):
        try:
            facts = os.stat(path)
        except FileNotFoundError:  # it was there just now
            continue
        rows.append(Match(name, as_text(path), facts.st_size, facts.st_ino, facts.st_mtime_ns))
    return {"files": rows, "looked": found.looked}


def put(blob: bytes, path: str, mode: int = 0o600) -> Result:
    """Write a file, whole and by rename."""
    write_atomically(native(path), blob, mode)
    return {}


def mkdir(path: str, workdir: str) -> Result:
    """Make a folder in a workdir, or that itself, and its missing parents, 0700 and this user's alone."""
    make_own_folder(os.path.normpath(native(path)), os.path.normpath(native(workdir)))
    return {}


def remove(root: str, paths: Sequence[str]) -> Result:
    """Remove files and folders strictly below ``root``; one path elsewhere refuses the whole call."""
    top = os.path.realpath(native(root))
    targets = []
    for path in paths:
        parent, name = os.path.split(os.path.join(top, native(path)).rstrip(b"/"))
        target = os.path.join(os.path.realpath(parent), name)
        if top == b"/" or name in (b"", b".", b"..") or not target.startswith(top + b"/"):
            raise Failure("outside", f"{path} is not below {root}: nothing was removed")
        targets.append(target)
    for target in targets:
        remove_tree(target)
    return {}


def disk(path: str) -> Result:
    """Return the bytes and inodes of the file system at ``path``."""
    found = os.statvfs(native(path))
    size = found.f_frsize
    return Disk(found.f_blocks * size, found.f_bavail * size, found.f_files, found.f_favail)._asdict()
