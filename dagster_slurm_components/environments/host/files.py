"""What every part of the builder does with files."""

import hashlib
import os
from typing import Any, Dict, List, Optional, Tuple

Json = Dict[str, Any]
CHUNK = 4 * 1024 * 1024


class Problem(Exception):
    """What can't be done; ``code`` is a short stable word for programs."""

    def __init__(self, code: str, message: str, detail: Optional[List[str]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail or []


def hash_of(path: str) -> str:
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


def size_of(folder: str) -> Tuple[int, int]:
    """Return bytes and inodes of a folder; a file that is also elsewhere (a hard link) counts here too."""
    total, count = 0, 1
    for where, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        for name in files:
            total += os.lstat(os.path.join(where, name)).st_size
    return total, count
