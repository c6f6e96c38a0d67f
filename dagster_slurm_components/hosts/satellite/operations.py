"""What a satellite can be asked to do."""

import errno
import inspect
import os
import platform
import pwd
import sys
import time
from typing import Callable, Dict, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.leases import attempts, change_lease, open_leases
from dagster_slurm_components.hosts.satellite.processes import alive, kill
from dagster_slurm_components.hosts.satellite.protocol import VERSION, Failure, Result, as_text
from dagster_slurm_components.hosts.satellite.queries import run, snapshot
from dagster_slurm_components.hosts.satellite.submission import submit
from dagster_slurm_components.hosts.satellite.transfer import disk, mkdir, put, read, remove


def hello(blob: bytes, names: Sequence[str] = ()) -> Tuple[Result, bytes]:
    """Return what this machine is, and the asked environment variables, no others."""
    user = pwd.getpwuid(os.getuid())
    return {
        "version": VERSION,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": sys.platform,
        "machine": platform.machine(),
        "hostname": os.uname().nodename,
        "user": user.pw_name,
        "uid": user.pw_uid,
        "home": os.environ.get("HOME") or user.pw_dir,
        "pid": os.getpid(),
        "time": time.time(),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }, b""


def ping(blob: bytes) -> Tuple[Result, bytes]:
    """Answer; not even a busy satellite lets this wait."""
    return {}, b""


OPS: Dict[str, Callable[..., Tuple[Result, bytes]]] = {
    "hello": hello,
    "ping": ping,
    "submit": submit,
    "attempts": attempts,
    "open_leases": open_leases,
    "change_lease": change_lease,
    "read": read,
    "put": put,
    "mkdir": mkdir,
    "remove": remove,
    "disk": disk,
    "run": run,
    "snapshot": snapshot,
    "alive": alive,
    "kill": kill,
}


_CODES = {
    errno.ENOENT: "not_found",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
}


def handle(op: str, params: Result, blob: bytes = b"") -> Tuple[Result, bytes]:
    """Do one operation; raises Failure."""
    function = OPS.get(op)
    if function is None:
        raise Failure("unknown_op", "there is no operation {!r}; there are {}".format(op, ", ".join(OPS)))
    try:
        arguments = inspect.signature(function).bind(blob, **params)
    except TypeError as error:
        raise Failure("bad_request", f"{op}: {error}") from error
    try:
        return function(*arguments.args, **arguments.kwargs)
    except OSError as error:
        code = _CODES.get(error.errno or 0, "failed")
        place = as_text(error.filename) if isinstance(error.filename, bytes) else error.filename
        raise Failure(code, f"{place}: {error.strerror}" if place else str(error)) from error
