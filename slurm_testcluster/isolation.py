"""Give each daemon a host name and an /etc/hosts of its own, where the machine permits it.

Four slurmd on one machine can then be told apart by ``hostname``, as torchrun, Ray and MPI expect, and
their names resolve without a change to the machine's own /etc/hosts.
"""

from __future__ import annotations

import enum
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ENTER = Path(__file__).with_name("enter.sh")

_NEW = ["--mount", "--uts", "--propagation", "slave"]


class Isolation(enum.Enum):
    """How new UTS and mount namespaces can be had on this machine."""

    ROOT = "root"
    USER = "user"
    SUDO = "sudo"
    NONE = "none"


def isolated_argv(isolation: Isolation, name: str, hosts: Path, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs ``argv`` under another host name, with ``hosts`` as its /etc/hosts.

    It ends up with the privileges of the caller in each case; ``NONE`` returns ``argv`` itself.
    """
    enter = ["/bin/sh", str(ENTER), name, str(hosts)]
    if isolation is Isolation.ROOT:
        return ["unshare", *_NEW, *enter, *argv]
    if isolation is Isolation.USER:
        # A user namespace in which we are ourselves; the capabilities that naming and mounting need are
        # given up again before the program starts.
        user = ["--user", "--map-current-user", "--keep-caps"]
        return ["unshare", *user, *_NEW, *enter, "setpriv", "--ambient-caps=-all", "--inh-caps=-all", *argv]
    if isolation is Isolation.SUDO:
        me = pwd.getpwuid(os.getuid())
        back = ["setpriv", "--reuid", str(me.pw_uid), "--regid", str(me.pw_gid), "--init-groups"]
        return ["sudo", "-n", "unshare", *_NEW, *enter, *back, *argv]
    return list(argv)


def _works(isolation: Isolation) -> bool:
    argv = isolated_argv(isolation, "probe", Path("/etc/hosts"), ["true"])
    if shutil.which(argv[0]) is None:
        return False
    try:
        return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def detect() -> Isolation:
    """Try what this machine permits, the way with the fewest privileges first."""
    # Ubuntu 24.04 forbids user namespaces to ordinary programs (AppArmor), containers often all of them.
    tries = [Isolation.ROOT] if os.getuid() == 0 else [Isolation.USER, Isolation.SUDO]
    return next((isolation for isolation in tries if _works(isolation)), Isolation.NONE)
