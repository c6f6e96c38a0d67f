"""What the jobs that have not ended name in a file of their run directories."""

import contextlib
import glob
from pathlib import Path
from typing import List, Set


def in_use(workdir: Path, name: str, keys: List[str]) -> Set[str]:
    """Return the keys that the file ``name`` of a job's holds, of one without an exit in its status since it began."""
    used: Set[str] = set()
    for path in map(Path, glob.iglob(glob.escape(str(workdir / "runs")) + "/**/" + name, recursive=True)):
        status = b""
        with contextlib.suppress(OSError):
            status = path.with_name("status").read_bytes().rpartition(b"restart=")[2]
        if any(line.startswith(b"exit=") for line in status.splitlines()):
            continue
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            used.update(key for key in keys if key.encode() in content)
    return used
