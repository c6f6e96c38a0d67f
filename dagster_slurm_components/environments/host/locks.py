"""Locks for all processes of all machines that see a file: by flock, and where that does not work by a folder."""

import contextlib
import errno
import fcntl
import os
import threading
import time
from typing import Callable, Iterator, Optional

from dagster_slurm_components.environments.host.files import Problem

_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_BEAT = 10.0
_STALE = 120.0


@contextlib.contextmanager
def locked(path: str, patience: float) -> Iterator[None]:
    """Hold the lock file at ``path``, for all processes of all machines that see it."""
    deadline = time.monotonic() + patience
    while True:
        release = take(path)
        if release is not None:
            break
        if time.monotonic() > deadline:
            raise Problem("locked", "another build has held %s for %d s" % (path, patience))
        time.sleep(0.1)
    try:
        yield
    finally:
        release()


def take(path: str) -> Optional[Callable[[], None]]:
    """Take the lock now; return what releases it, or None while somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_FLOCK:  # Lustre mounted without -o flock, some NFS
            return take_folder(path + ".d")
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return None
        raise
    return lambda: os.close(descriptor)


def take_folder(path: str) -> Optional[Callable[[], None]]:
    """Take a lock where flock does not work: a folder whose holder touches it again and again."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(path).st_mtime > _STALE:
                # Renamed first, so that of several that find it stale one removes it and none a fresh one.
                os.rename(path, "%s.stale-%d" % (path, os.stat(path).st_ino))
        return None
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, daemon=True).start()

    def release() -> None:
        done.set()
        with contextlib.suppress(OSError):
            os.rmdir(path)

    return release
