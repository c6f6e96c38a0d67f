"""What a satellite can be asked to do, and its serving: requests over a stream are answered until they end."""

import concurrent.futures
import contextlib
import errno
import inspect
import os
import platform
import pwd
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO, Callable, Dict, Sequence, Set, Tuple

from dagster_slurm_components.hosts.satellite.budget import share
from dagster_slurm_components.hosts.satellite.calls import HostFacts
from dagster_slurm_components.hosts.satellite.leases import attempts, change_lease, open_leases
from dagster_slurm_components.hosts.satellite.processes import alive, kill
from dagster_slurm_components.hosts.satellite.protocol import (
    BUSY,
    READY,
    Failure,
    FrameError,
    Result,
    as_text,
    encode_frame,
    native,
    read_frame,
)
from dagster_slurm_components.hosts.satellite.queries import accounting, run, snapshot
from dagster_slurm_components.hosts.satellite.streams import Hear, Program, Tell
from dagster_slurm_components.hosts.satellite.submission import submit
from dagster_slurm_components.hosts.satellite.transfer import (
    disk,
    fetch,
    matches,
    mkdir,
    put,
    read,
    remove,
)
from dagster_slurm_components.hosts.satellite.uploads import digests, receive

WORKERS = 32
_FAREWELL = 90.0
"""Seconds in which a submission under way may still write its job's id when the connection is gone."""


def hello(names: Sequence[str] = ()) -> Result:
    """Return what this machine is, and the asked environment variables, no others."""
    return HostFacts(
        pid=os.getpid(),
        user=_user(os.getuid(), "{}"),
        home=os.path.expanduser("~"),
        hostname=os.uname().nodename,
        python=platform.python_version(),
        executable=sys.executable,
        time=time.time(),
        environment={name: os.environ[name] for name in names if name in os.environ},
    )._asdict()


def ping() -> Result:
    """Answer; not even a busy satellite lets this wait."""
    return {}


OPS: Dict[str, Callable[..., Any]] = {
    operation.__name__: operation
    for operation in (
        hello, ping, submit, attempts, open_leases, change_lease, read, fetch, put, matches, digests, receive, mkdir,
        remove, disk, run, snapshot, accounting, share, alive, kill,
    )
}  # fmt: skip
"""Each takes JSON values, and ``blob`` if it uses one; and returns a result, or a result and bytes."""

_CODES = {
    errno.ENOENT: "not_found",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
    **dict.fromkeys((errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE), BUSY),
}


def handle(op: str, params: Result, blob: bytes = b"") -> Tuple[Result, bytes]:
    """Do one operation; raises Failure."""
    function = OPS.get(op)
    if function is None:
        raise Failure("unknown_op", "there is no operation {!r}; there are {}".format(op, ", ".join(OPS)))
    signature = inspect.signature(function)
    try:
        arguments = signature.bind(**params, **({"blob": blob} if "blob" in signature.parameters else {}))
    except TypeError as error:
        raise Failure("bad_request", f"{op}: {error}") from error
    try:
        reply = function(*arguments.args, **arguments.kwargs)
    except OSError as error:
        code = _CODES.get(error.errno or 0, "failed")
        place = as_text(error.filename) if isinstance(error.filename, bytes) else error.filename
        text = f"{place}: {error.strerror}" if place else str(error)
        if code == BUSY:
            text = (
                f"no process, thread, file or memory is left for this user there just now: {error.strerror}"
            )
        blocked = code == "not_permitted" and isinstance(place, str) and place.startswith("/")
        raise Failure(code, text + (_owner(place) if blocked else "")) from error
    return reply if isinstance(reply, tuple) else (reply, b"")


def _owner(place: str) -> str:
    """Say whose a path is that we may not use, or the last folder of it that we see, where that is another user's."""
    while not os.path.lexists(native(place)):
        place = os.path.dirname(place)
    owner, ours = os.lstat(native(place)).st_uid, os.geteuid()
    if owner == ours:
        return ""
    return (
        f". {place} belongs to {_user(owner)}, and this login is {_user(ours)}'s: a workdir has one owner, "
        "so name one of your own in the profile, such as one with `$USER` in its path"
    )


def _user(number: int, unknown: str = "the user with id {}") -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return unknown.format(number)


def reply_to(request: Result, blob: bytes) -> bytes:
    """Return the reply's frame; whatever goes wrong is a reply as well."""
    try:
        result, data = handle(request.get("op", ""), request.get("params", {}), blob)
        return encode_frame({"id": request.get("id"), "ok": True, "result": result}, data)
    except Failure as failure:
        code, message = failure.code, failure.message
    except FrameError as error:
        code, message = "too_large", str(error)
    except Exception:  # noqa: BLE001 - a fault of ours must not take the other requests down; it is told
        code, message = "internal", traceback.format_exc()
    return encode_frame({"id": request.get("id"), "ok": False, "code": code, "error": message})


def serve(requests: BinaryIO, replies: BinaryIO, pool: concurrent.futures.ThreadPoolExecutor) -> None:
    """Answer requests, several at a time, until ``requests`` ends; kills nothing then."""
    writing = threading.Lock()
    submissions: Set["concurrent.futures.Future[None]"] = set()

    def send(frame: bytes) -> None:
        with writing, contextlib.suppress(OSError):  # the client may be gone
            replies.write(frame)
            replies.flush()

    def answer(request: Result, blob: bytes, done: "concurrent.futures.Future[None]") -> None:
        try:
            send(reply_to(request, blob))
        finally:
            done.set_result(None)

    send(READY)
    while True:
        try:
            frame = read_frame(requests.read)
        except FrameError as error:
            send(encode_frame({"id": None, "ok": False, "code": "bad_frame", "error": str(error)}))
            break
        if frame is None:
            break
        request, blob = frame
        done: "concurrent.futures.Future[None]" = concurrent.futures.Future()
        if request.get("op") == "ping":
            answer(request, blob, done)
            continue
        if request.get("op") == "stream":
            _converse(request["params"], lambda: read_frame(requests.read), send)
            break
        if request.get("op") == "submit":
            submissions.add(done)
            done.add_done_callback(submissions.discard)
        with contextlib.suppress(
            RuntimeError
        ):  # no further thread can be had: one of those that are there takes it
            pool.submit(answer, request, blob, done)
    concurrent.futures.wait(list(submissions), timeout=_FAREWELL)


def _converse(params: Result, hear: Hear, send: Tell) -> None:
    """Let this connection be a program's alone from now on, if it can be started."""
    try:
        program = Program(**params)
    except (Failure, OSError) as error:
        code = error.code if isinstance(error, Failure) else _CODES.get(error.errno or 0, "failed")
        send(encode_frame({"ok": False, "code": code, "error": str(error)}))
        return
    send(encode_frame({"ok": True}))
    with contextlib.suppress(FrameError, OSError):  # the client was killed within a frame
        program.converse(hear, send)


def main() -> None:
    """Serve on standard input and output; nothing else may print there."""
    os.chdir("/")  # holds no folder busy
    pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
    pool.submit(int)  # so one thread is there for sure; while somebody still hears why there can be none
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)  # nobody reads it at the other end, and a full pipe would stop us
    serve(sys.stdin.buffer, replies, pool)
    os._exit(0)  # not waiting for hanging commands, as the interpreter's normal end would
