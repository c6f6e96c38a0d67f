"""One caller at a time may change a cluster, also when the lock's own folder comes and goes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for whoever has it; the folder is made if it is missing.

    ``down`` removes the folder with the lock in it. Who waited for that lock then holds one on a file that
    is no longer there, and has to begin again.
    """
    file = folder / "lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, FileExistsError):
            # Removed by somebody between two calls; `mkdir` says then that it exists, for it looks a second time.
            if folder.is_file():
                raise
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_same(descriptor, file):
                yield
                return
        finally:
            os.close(descriptor)


def _is_same(descriptor: int, file: Path) -> bool:
    # By name and not by its number of links: what is removed on NFS while it is open keeps one.
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
