"""Where things lie in a working folder, and how a file gets in there."""

import contextlib
import errno
import hashlib
import json
import os
from typing import Any, Iterator, Optional

from dagster_slurm_components.data.host.content import EXECUTABLE, PLAIN
from dagster_slurm_components.environments.host.tools import Json, Problem
from dagster_slurm_components.hosts.satellite.files import make_own_folder, read_json
from dagster_slurm_components.hosts.satellite.protocol import as_text, native

MODES = {PLAIN: 0o400, EXECUTABLE: 0o500}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Layout:
    """The folder ``data`` of a working folder. Paths are bytes: old Pythons can't encode all names in all locales."""

    def __init__(self, workdir: str) -> None:
        self.workdir = os.path.normpath(native(workdir))
        self.data = os.path.join(self.workdir, b"data")

    def folder(self, *names: bytes) -> bytes:
        """Return a folder below ``data``, which is there then."""
        path = os.path.join(self.data, *names)
        make_own_folder(path, self.workdir)
        return path

    def tree(self, key: str, state: str = "") -> bytes:
        """Return where an input lies, or, with a state (``making``, ``removing``), where it lies meanwhile."""
        return os.path.join(self.data, b"trees", (".%s-%s" % (state, key) if state else key).encode())

    def lock(self, folder: bytes, key: str) -> bytes:
        """Return the lock of a thing in a folder; it stays for ever, so of very many things some share one."""
        return os.path.join(self.folder(folder), b".lock-" + key[:3].encode())

    def record(self, key: str) -> bytes:
        """Return the file that tells what a URL, or an archive, gave."""
        return os.path.join(self.folder(b"urls"), key.encode() + b".json")

    def ready(self, key: str) -> Optional[Json]:
        """Return what an input is, if it is there."""
        found: Optional[Json] = read_json(os.path.join(self.tree(key), b".ready"))
        return found

    def ask(self, key: str) -> Optional[Json]:
        """Return what an input is, if it is there: by this it is asked for. Under its lock."""
        ready = self.ready(key)
        if ready is None:
            return None
        os.utime(os.path.join(self.tree(key), b".ready"))
        return dict(ready, state="ready")

    def object(self, kind: str, sha256: str) -> bytes:
        """Return where the content of a file lies."""
        return os.path.join(self.data, b"objects", sha256[:2].encode(), (sha256 + kind).encode())

    def admit(self, part: bytes, kind: str, sha256: str) -> None:
        """Let in a file that has this content; one that is there already stays, and counts as new."""
        target = self.object(kind, sha256)
        if os.path.exists(target) and os.path.getsize(target) == os.path.getsize(part):
            os.utime(target)
            os.unlink(part)
            return
        self.folder(b"objects", sha256[:2].encode())
        os.chmod(part, MODES[kind])
        os.rename(part, target)


def identity(*parts: Any) -> str:
    """Return a name that only these values have."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def lowest(*limits: Optional[int]) -> Optional[int]:
    """Return the lowest of limits, where None is none."""
    return min([limit for limit in limits if limit is not None], default=None)


@contextlib.contextmanager
def room_on_disk(layout: Layout) -> Iterator[None]:
    """Say of a disk that is full, or a quota, which one it is; whoever works within leaves nothing half-made."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = as_text(layout.data)
        raise Problem("disk_full", "no room in %s: %s. Nothing half-made was left" % (where, error.strerror))
