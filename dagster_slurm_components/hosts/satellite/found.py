"""What a pattern of a user stands for in a payload's folder: here and now, and links that lead out are not followed.

The collector of outputs has this file beside it in the run directory, so it imports nothing of ours. Standard library
only, Python 3.6.
"""

import fnmatch
import os
import re
import stat
from typing import Dict, List

_MAGIC = re.compile(r"[*?[]")


class CrowdedError(Exception):
    """There is more than may be looked at."""


def raw(text: str) -> bytes:
    """Return a name as the file system has it, whatever the locale."""
    return text.encode("utf-8", "surrogateescape")


def text_of(data: bytes) -> str:
    """Return a name as text; bytes that are no UTF-8 are surrogates."""
    return data.decode("utf-8", "surrogateescape")


class Found:
    """What a pattern stands for.

    Attributes:
        base: The folder of which no part is a pattern.
        files: The files' real places, by their names below ``base``.
        notes: What was left out, and why.
        single: Whether the pattern is one file's name.
        looked: How many entries of folders were looked at: ``most`` at most, or CrowdedError is raised.
    """

    def __init__(self, root: bytes, pattern: str, most: float = float("inf")) -> None:
        self._root = os.path.realpath(root)
        self._most = most
        self.looked = 0
        self.files: Dict[str, bytes] = {}
        self.notes: List[str] = []
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if pattern.startswith("/") or ".." in parts:  # `check` refuses it
            raise ValueError(f"{pattern!r} leads out of the payload's folder")
        if parts and parts[-1] == "**":
            parts.append("*")
        plain = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        path = os.path.join(self._root, *map(raw, parts[:plain]))
        self.single = plain == len(parts) and not (self._within(path) and os.path.isdir(path))
        self.base = os.path.dirname(path) if self.single else path
        if self.single:
            self._file(path)
        elif plain < len(parts):
            self._match(path, parts[plain:])
        else:
            self._walk(path, hidden=True)

    def _match(self, folder: bytes, parts: List[str]) -> None:
        part, rest = parts[0], parts[1:]
        if not self._within(folder):
            return
        if part == "**":
            self._match(folder, rest)
        for name in self._names(folder):
            path, label = os.path.join(folder, name), text_of(name)
            is_link, is_folder = os.path.islink(path), os.path.isdir(path)
            hidden = label.startswith(".") and not part.startswith(".")
            if part == "**" and is_folder and not is_link and not hidden:
                self._match(path, parts)
            elif part == "**" or hidden or not (label == part or fnmatch.fnmatchcase(label, part)):
                continue
            elif not rest:
                self._entry(path, hidden=label == part)
            elif is_folder and (label == part or not is_link):
                self._match(path, rest)

    def _walk(self, folder: bytes, hidden: bool) -> None:
        for name in self._names(folder):
            if hidden or not name.startswith(b"."):
                self._entry(os.path.join(folder, name), hidden)

    def _entry(self, path: bytes, hidden: bool) -> None:
        """Take a file, or all of a folder; what is ``hidden`` in it only where no wildcard led there."""
        if not os.path.isdir(path):
            self._file(path)
        elif os.path.islink(path):
            self._note(path, "is a link to a folder, which is not followed")
        else:
            self._walk(path, hidden)

    def _names(self, folder: bytes) -> List[bytes]:
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            if os.path.isdir(folder):
                self._note(folder, f"can't be listed: {error.strerror}")
            return []
        self.looked += len(names)
        if self.looked > self._most:
            raise CrowdedError
        return names

    def _file(self, path: bytes) -> None:
        if not os.path.lexists(path):
            return
        try:
            mode = os.stat(path).st_mode
        except OSError:  # to nothing, or to itself
            self._note(path, "is a link that leads to no file")
            return
        if not self._within(path):
            self._note(path, "is a link that leads out of the payload's folder, and is not followed")
        elif not stat.S_ISREG(mode):
            self._note(path, "is no file")
        else:
            self.files[text_of(os.path.relpath(path, self.base))] = os.path.realpath(path)

    def _within(self, path: bytes) -> bool:
        return (os.path.realpath(path) + b"/").startswith(self._root + b"/")

    def _note(self, path: bytes, what: str) -> None:
        self.notes.append(f"{text_of(os.path.relpath(path, self._root))} {what}")
