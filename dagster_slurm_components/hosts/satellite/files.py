"""Folders and files as everything here makes and removes them: whole or not at all, and closed to others."""

import base64
import contextlib
import errno
import json
import os
import shutil
import stat
from typing import Any, AnyStr, Optional

_WRITTEN = 64 * 1024
"""Bytes that one write carries."""


def make_folder(path: bytes) -> None:
    """Make a folder and its missing parents, 0700 (os.makedirs gives parents the umask's mode)."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent not in (path, b""):
        make_folder(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:  # made meanwhile, or another thing than a folder
        if not os.path.isdir(path):
            raise


def make_own_folder(path: bytes, workdir: bytes) -> None:
    """Make a folder in a workdir, where every folder on the way is this user's alone.

    Whoever may write into one of them could put another job script in the place of ours while the job waits. Raises
    PermissionError for such a folder, and for a link below the workdir.
    """
    make_folder(path)
    while True:
        is_workdir = path == workdir
        facts = os.stat(path) if is_workdir else os.lstat(path)
        if stat.S_ISLNK(facts.st_mode):
            raise PermissionError(errno.EPERM, "a link, where a folder of our own must be: remove it", path)
        if facts.st_uid != os.geteuid() and facts.st_uid != _owner_of_new(path):
            raise PermissionError(errno.EPERM, "another user could change what is made there", path)
        if facts.st_mode & 0o022:
            mode = stat.S_IMODE(facts.st_mode)
            why = "others may write there (mode {:04o}), and so change this user's jobs: `chmod go-w` it"
            raise PermissionError(errno.EPERM, why.format(mode), path)
        if is_workdir or len(path) <= len(workdir):
            return
        path = os.path.dirname(path)


def _owner_of_new(folder: bytes) -> int:
    """Return whose a folder is that we make here: some mounts give all files another owner."""
    probe = temporary_name(os.path.join(folder, b"probe"))
    os.mkdir(probe, 0o700)
    try:
        return os.lstat(probe).st_uid
    finally:
        os.rmdir(probe)


def read_file(path: bytes) -> Optional[bytes]:
    """Return a file's content, or None when there is no file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: bytes) -> Any:
    """Return what a JSON file holds, or None when there is none, or it was emptied, as by a crash of its disk."""
    with contextlib.suppress(ValueError):
        return json.loads((read_file(path) or b"").decode("ascii"))
    return None


def write_json(path: bytes, value: Any, durable: bool = False) -> None:
    """Publish JSON, as ``write_atomically`` does."""
    write_atomically(path, json.dumps(value).encode("ascii"), durable=durable)


def temporary_name(path: bytes) -> bytes:
    """Return a name beside ``path`` that nobody else uses."""
    return path + b".tmp-" + base64.b16encode(os.urandom(8)).lower()


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of it at an offset, by pieces.

    Where pages are as large as 2 MiB the kernel takes whole ones for a write of that size: in a virtual machine that
    gives free ones back to its host (Linux 6.18, page reporting) each has to be fetched anew, at a tenth of the speed.
    """
    while data:
        written = os.pwrite(descriptor, data[:_WRITTEN], offset)
        data, offset = data[written:], offset + written


def write_atomically(path: bytes, data: bytes, mode: int = 0o600, durable: bool = False) -> None:
    """Publish a file whole or not at all; a ``durable`` one is on disk when this returns."""
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove_tree(path: AnyStr) -> None:
    """Remove a file, a link (not what it points to) or a folder; nothing there is fine."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        # Packages and payloads may leave folders without write permission.
        os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):
            for name in names:
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
        shutil.rmtree(path)
