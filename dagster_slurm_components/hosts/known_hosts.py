"""OpenSSH's known_hosts files: who may answer under a name.

Read here and not by paramiko, whose reader knows no patterns, no ``@revoked``, and only one key of a kind for a
name; behind one name of an HPC centre stand several login nodes, each with its own key.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        place: ``file:line``.
        marker: ``revoked``, ``cert-authority`` or nothing.
        names: Names, patterns or one hashed name.
        key_type: Such as ``ssh-ed25519``.
        key: The public key's bytes.
    """

    place: str
    marker: str
    names: tuple[str, ...]
    key_type: str
    key: bytes

    def matches(self, name: str) -> bool:
        """Return whether the line speaks of ``name`` (``host_name``)."""
        found = False
        for pattern in self.names:
            negated = pattern.startswith("!")
            if _fits(pattern.removeprefix("!"), name.lower()):
                if negated:
                    return False
                found = True
        return found


class Verdict(Enum):
    """What the files say of a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


def host_name(hostname: str, port: int) -> str:
    """Return the name under which the files list a host."""
    return hostname if port == 22 else f"[{hostname}]:{port}"


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def parse(text: str, file: str) -> list[Entry]:
    """Read a file's text; like OpenSSH, lines that can't be read are passed over."""
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        marker = fields.pop(0).removeprefix("@") if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except ValueError:
            continue
        names = tuple(name.lower() if not name.startswith("|") else name for name in fields[0].split(","))
        entries.append(Entry(f"{file}:{number}", marker, names, fields[1], key))
    return entries


def about(entries: Iterable[Entry], name: str) -> list[Entry]:
    """Return the entries that name a key of ``name`` itself, revoked ones included."""
    return [entry for entry in entries if entry.marker != "cert-authority" and entry.matches(name)]


def judge(entries: Sequence[Entry], name: str, key_type: str, key: bytes) -> tuple[Verdict, Entry | None]:
    """Return what the entries say of a host's key, and the line that decided."""
    listed = about(entries, name)
    same = [entry for entry in listed if entry.key == key]
    for entry in same:
        if entry.marker == "revoked":
            return Verdict.REVOKED, entry
    if same:
        return Verdict.KNOWN, same[0]
    for entry in listed:
        if entry.key_type == key_type and entry.marker != "revoked":
            return Verdict.CHANGED, entry
    return Verdict.UNKNOWN, None


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part) for part in pattern[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    # Only * and ? are special to OpenSSH; brackets belong to [host]:port.
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))
