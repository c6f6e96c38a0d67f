"""Serving: requests are answered, several at a time, until they end."""

import concurrent.futures
import contextlib
import os
import sys
import threading
import traceback
from typing import BinaryIO, Set

from dagster_slurm_components.hosts.satellite.operations import handle
from dagster_slurm_components.hosts.satellite.protocol import (
    READY,
    Failure,
    FrameError,
    Result,
    encode_frame,
    read_frame,
)

_WORKERS = 32
_FAREWELL = 90.0
"""Seconds in which a submission under way may still write its job's id when the connection is gone."""


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


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests, several at a time, until ``requests`` ends; kills nothing then."""
    writing = threading.Lock()
    submissions: Set["concurrent.futures.Future[None]"] = set()
    pool = concurrent.futures.ThreadPoolExecutor(_WORKERS)

    def send(frame: bytes) -> None:
        with writing, contextlib.suppress(OSError):  # the client may be gone
            replies.write(frame)
            replies.flush()

    def answer(request: Result, blob: bytes) -> None:
        send(reply_to(request, blob))

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
        if request.get("op") == "ping":
            answer(request, blob)
            continue
        future = pool.submit(answer, request, blob)
        if request.get("op") == "submit":
            submissions.add(future)
            future.add_done_callback(submissions.discard)
    concurrent.futures.wait(list(submissions), timeout=_FAREWELL)


def main() -> None:
    """Serve on standard input and output; nothing else may print there."""
    os.umask(0o077)
    os.chdir("/")  # holds no folder busy
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)  # nobody reads it at the other end, and a full pipe would stop us
    serve(sys.stdin.buffer, replies)
    os._exit(0)  # not waiting for hanging commands, as the interpreter's normal end would
