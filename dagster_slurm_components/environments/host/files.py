"""What every part of the builder does with files; this package does the same with its own."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

Json = Dict[str, Any]
AnyPath = Union[str, Path]
CHUNK = 4 * 1024 * 1024


class Problem(Exception):
    """What can't be done; ``code`` is a short stable word for programs."""

    def __init__(self, code: str, message: str, detail: Optional[List[str]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail or []


def hash_of(path: AnyPath) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write(path: str, text: str) -> None:
    """Write a new file, 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def new_file(target: AnyPath) -> Iterator[str]:
    """Yield a path beside ``target`` to write to, which takes its place when the block succeeds."""
    descriptor, temporary = tempfile.mkstemp(prefix="new-", dir=os.path.dirname(str(target)))
    os.close(descriptor)
    try:
        yield temporary
        os.rename(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def size_of(folder: str) -> Tuple[int, int]:
    """Return bytes and inodes of a folder; a file that is also elsewhere (a hard link) counts here too."""
    total, count = 0, 1
    for where, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        total += sum(os.lstat(os.path.join(where, name)).st_size for name in files)
    return total, count
