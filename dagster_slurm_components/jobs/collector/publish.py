"""Puts what a payload made to the place that others read: whole or not at all, and its source stays where it is.

On the same file system nothing is copied: the published files are further links to the payload's own. Beside the target
everything is gathered under a temporary name, which is renamed in the end.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import time
from typing import Dict, Iterator, Match

MARK = b".dg-slurm-output"
"""A file in each published folder: only such a folder is ever replaced, and no other folder of a user's."""
_OLD = 86400.0
"""Seconds after which what lies about is nobody's any more, where no lock tells."""
_VARIABLE = re.compile(rb"\\([\\$])|\$(?:(\w+)|\{(\w+)\})")


class PublishError(Exception):
    """Nothing was published; the text says why."""


def target_of(to: bytes, variables: Dict[str, str]) -> bytes:
    """Return the absolute path that ``to`` stands for."""

    def value(match: Match[bytes]) -> bytes:
        if match.group(1):  # means itself
            return match.group(1)
        name = (match.group(2) or match.group(3)).decode("ascii", "replace")
        if not variables.get(name):
            raise PublishError(f"the payload has no variable {name}")
        return variables[name].encode("utf-8", "surrogateescape")

    target = _VARIABLE.sub(value, to)
    if b".." in to.split(b"/"):
        raise PublishError("`..` is no part of a target")
    if not target.startswith(b"/") or target.strip(b"/") == b"":
        raise PublishError(f"{ascii(target)[2:-1]} is no absolute path")
    return os.path.normpath(target)


def publish(files: Dict[str, bytes], target: bytes, single: bool, name: str, base: bytes) -> None:
    """Publish files, by their names: as the folder ``target``, or, a single one, as that file.

    The folders below ``target`` get the modes of those below ``base``, where the files have the same names.
    Raises PublishError or OSError; then there is what there was before.
    """
    parent, last = os.path.split(target)
    os.makedirs(parent, exist_ok=True)
    mine = b".%s.dg-slurm-" % last[:200]
    with _swept(parent, mine, target):
        if os.path.islink(target) or (os.path.lexists(target) and os.path.isdir(target) == single):
            kind = "link" if os.path.islink(target) else "folder" if single else "file"
            raise PublishError(f"there is a {kind} of that name: remove it")
        if not single and _is_foreign(target):
            raise PublishError(
                "that folder holds what no output put there: move it away, or name another one"
            )
        new = os.path.join(parent, mine + b"new-%d-" % os.getpid() + os.urandom(4).hex().encode())
        try:
            if single:
                (source,) = files.values()
                _link(source, new)
                os.rename(new, target)
                return
            os.mkdir(new)
            for place, source in files.items():
                path = os.path.join(new, place.encode("utf-8", "surrogateescape"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _link(source, path)
            with open(os.path.join(new, MARK), "w") as mark:
                mark.write(f"{name}\n")
            for folder, _, _ in os.walk(new, topdown=False):
                if folder != new:
                    mode = os.stat(os.path.join(base, os.path.relpath(folder, new))).st_mode
                    os.chmod(folder, stat.S_IMODE(mode))
            _swap(new, target)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(new)
            raise


def _link(source: bytes, path: bytes) -> None:
    try:
        os.link(source, path)
        return
    except OSError as error:  # another file system, or one without links
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
    with open(source, "rb") as old, open(path, "xb") as new:
        shutil.copyfileobj(old, new, 4 * 2**20)
        os.fchmod(new.fileno(), os.fstat(old.fileno()).st_mode & 0o777)
        new.flush()
        os.fsync(new.fileno())


def _swap(new: bytes, target: bytes) -> None:
    """Put a folder in the place of another; somebody else may do the same."""
    old = new.replace(b".dg-slurm-new-", b".dg-slurm-old-")
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError as error:
            if error.errno in (
                errno.ENOTEMPTY,
                errno.EEXIST,
            ):  # another one was quicker: it is the older one now
                remove(old)
                continue
            if os.path.lexists(old):
                os.rename(old, target)
            raise
        remove(old)
        return


def _is_foreign(target: bytes) -> bool:
    try:
        names = os.listdir(target)
    except FileNotFoundError:
        return False
    return bool(names) and MARK not in names


@contextlib.contextmanager
def _swept(parent: bytes, mine: bytes, target: bytes) -> Iterator[None]:
    """Undo or end what was cut off here; whoever is at work in that folder keeps others from it by a shared lock."""
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        oldest = 0.0
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody is at work, or the file system has no locks
            oldest = _OLD
        for name in sorted(os.listdir(parent)):
            path = os.path.join(parent, name)
            if not name.startswith(mine):
                continue
            with contextlib.suppress(FileNotFoundError):  # its owner's own end of it
                if time.time() - os.lstat(path).st_ctime < oldest:
                    continue
                if name.startswith(mine + b"old-") and not os.path.lexists(target):
                    os.rename(path, target)
                else:
                    remove(path)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def remove(path: bytes) -> None:
    """Remove a file or a folder, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        for folder, names, _ in os.walk(path):  # payloads may leave folders that nobody may write to
            for name in names:
                if not os.path.islink(os.path.join(folder, name)):
                    os.chmod(os.path.join(folder, name), 0o700)
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
