"""Locks for all processes of all machines that see a file: by flock, and where that does not work by a folder."""

import base64
import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from typing import Callable, Iterator, Optional, Tuple

from dagster_slurm_components.hosts.satellite.files import read_json, write_json
from dagster_slurm_components.hosts.satellite.processes import identify, pid_namespace
from dagster_slurm_components.hosts.satellite.protocol import Failure, Result, as_text

_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
STALE_LOCK = 900.0
"""Seconds after which a folder lock that was taken on another machine, or in another container, and not touched since,
counts as abandoned."""
_TOUCH = 60.0


def acquire(path: bytes) -> Optional[Callable[[], None]]:
    """Take the lock file at ``path`` now; return what releases it, or None while somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_FLOCK:  # Lustre mounted without -o flock, some NFS
            return _acquire_folder(path + b".d")
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return None
        raise
    return lambda: os.close(descriptor)


def _acquire_folder(path: bytes) -> Optional[Callable[[], None]]:
    # A folder that holds its owner's name is prepared aside and renamed into place: renaming onto a folder
    # that is not empty fails everywhere, so the lock and the knowledge of its owner appear in one step.
    token = base64.b16encode(os.urandom(8)).decode().lower()
    prepared = path + b"." + token.encode()
    pid = os.getpid()
    owner = {"token": token, "pid": pid, "start": identify([pid]).get(pid)}
    owner["node"], owner["pid_namespace"] = _here()
    os.mkdir(prepared, 0o700)
    write_json(os.path.join(prepared, b"owner"), owner)
    if not _rename_new(prepared, path):
        _break_abandoned(path)
        if not _rename_new(prepared, path):
            shutil.rmtree(prepared)
            return None

    released = threading.Event()

    def touch() -> None:
        while not released.wait(_TOUCH):
            with contextlib.suppress(OSError):
                os.utime(path)

    def release() -> None:
        released.set()
        if _lock_owner(path).get("token") == token:  # else it was taken for abandoned
            os.rename(path, prepared)
            shutil.rmtree(prepared)

    with contextlib.suppress(RuntimeError):  # no thread is to be had, and few hold a lock for long
        threading.Thread(target=touch, name="keeps a lock", daemon=True).start()
    return release


def _here() -> Tuple[str, str]:
    return os.uname().nodename, pid_namespace()


def _lock_owner(path: bytes) -> Result:
    return read_json(os.path.join(path, b"owner")) or {}


def _rename_new(source: bytes, target: bytes) -> bool:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _break_abandoned(path: bytes) -> None:
    owner = _lock_owner(path)
    with contextlib.suppress(FileNotFoundError, KeyError):  # released meanwhile
        if (owner["node"], owner.get("pid_namespace")) == _here():
            abandoned = identify([owner["pid"]]).get(owner["pid"]) != owner["start"]
        else:
            abandoned = time.time() - os.stat(path).st_mtime > STALE_LOCK
        if abandoned:
            # Named after the owner and kept: a second breaker that saw the same owner finds the name taken,
            # and can't move away the lock that the first breaker has taken since.
            _rename_new(path, path + b".abandoned-" + owner["token"].encode())


@contextlib.contextmanager
def locked(path: bytes, timeout: float, pause: float = 0.05) -> Iterator[None]:
    """Hold the lock file at ``path``, for however long it takes.

    Who may have to wait for minutes asks less often: a try at a folder lock is half a dozen requests to the disk.
    """
    deadline = time.monotonic() + timeout
    release = acquire(path)
    while release is None:
        if time.monotonic() > deadline:
            raise Failure("locked", f"{as_text(path)} stayed locked for {timeout:g} s")
        time.sleep(pause)
        release = acquire(path)
    try:
        yield
    finally:
        release()
