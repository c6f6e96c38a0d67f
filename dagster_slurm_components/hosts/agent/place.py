"""Where the agent of this user on this machine is found: a folder of its own, below ``/tmp``."""

import contextlib
import hashlib
import os
import stat
import sys
from functools import cache
from pathlib import Path

from dagster_slurm_components.errors import HostRefusedError
from dagster_slurm_components.hosts import bootstrap

SWITCH = "DAGSTER_SLURM_AGENT"
"""Set to ``off``, each process dials by itself: for containers that live as long as one step."""

FOLDER = "DAGSTER_SLURM_AGENT_DIR"
"""Another folder for the agent's socket."""

_PROTOCOL = 1
_LONGEST = 107 if sys.platform == "linux" else 103
_HINT = f"Name another folder in {FOLDER}, or set {SWITCH}=off to connect without the agent."


@cache
def version() -> str:
    """Return what both ends must have in common: this protocol, and the satellite behind it."""
    content = hashlib.sha256(bootstrap.source()).hexdigest()[:12]
    return f"{_PROTOCOL}.{content}"


def wanted() -> bool:
    """Return whether the environment leaves the agent switched on; raises HostRefusedError when it says neither."""
    value = os.environ.get(SWITCH, "on")
    if value not in ("on", "off"):
        raise HostRefusedError(f"{SWITCH} is {value!r}; it can be 'on' or 'off'")
    return value == "on"


def folder() -> Path:
    """Return the agent's folder, made if missing; nobody else can look into it.

    Not in the home folder, which many machines share and whose paths are often longer than a socket's name may
    be (108 bytes); and not in ``XDG_RUNTIME_DIR``, which goes with the user's last login session while a Dagster
    daemon goes on.

    Raises HostRefusedError when somebody else made it, or it is open to others.
    """
    own = os.environ.get(FOLDER)
    home = hashlib.sha256(os.fsencode(Path.home())).hexdigest()[:8]
    path = Path(own) if own else Path(f"/tmp/dagster-slurm-{os.getuid()}-{home}")  # noqa: S108 - checked below
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=bool(own))
    except OSError as error:
        why = f"can't make the agent's folder {path}: {error.strerror}"
        raise HostRefusedError(why, hint=_HINT) from error
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        why = f"{path} must be a folder of yours that is closed to others (0700)"
        raise HostRefusedError(why, hint=_HINT)
    return path


def address() -> str:
    """Return the socket's path; raises HostRefusedError where it is longer than a socket's may be."""
    path = str(folder() / "socket")
    if len(os.fsencode(path)) > _LONGEST:
        raise HostRefusedError(
            f"{path} is too long for a socket, whose path holds {_LONGEST} bytes", hint=_HINT
        )
    return path
