"""The agent's side: accepts the processes of this user and forwards their calls to the hosts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydantic

from dagster_slurm_components.errors import (
    DagsterSlurmError,
    HostError,
    HostRefusedError,
    HostUnreachableError,
)
from dagster_slurm_components.hosts import wire
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.agent.pipes import SocketPipe
from dagster_slurm_components.hosts.agent.shared import SharedHost
from dagster_slurm_components.hosts.answers import Prompt
from dagster_slurm_components.hosts.satellite.protocol import FrameError, encode_frame, read_frame
from dagster_slurm_components.spec.hosts import SshHost

IDLE = 900.0
"""Seconds without clients after which the agent ends, unless it holds a login that a person made."""

_LOOK = 1.0
_TURNS = 16
"""Calls of one client that may be under way at once; its further ones wait, and not those of other clients."""

_WORKERS = 256


class Agent:
    """Serves clients until it is idle or told to stop.

    Args:
        folder: Where its socket lies; closed to others.
        idle: Seconds without clients after which it ends.
    """

    def __init__(self, folder: Path, *, idle: float = IDLE) -> None:
        self._folder = folder
        self._path = folder / "socket"
        self._lock_path = folder / "agent.lock"
        self._idle = idle
        self._began = time.time()
        self._lock = threading.Lock()
        self._hosts: dict[str, SharedHost] = {}
        self._clients: dict[SocketPipe, str] = {}
        self._used = time.monotonic()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="call")
        self._wants: dict[str, Callable[[SocketPipe, dict[str, Any]], None]] = {
            "host": self._forward,
            "login": self._login,
            "status": self._status,
            "stop": self._stop,
        }

    def serve(self) -> bool:
        """Serve; return False at once when another agent does already."""
        held = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return False
        try:
            with self._listening() as server:
                self._accept(server)
        finally:
            for shared in self._hosts.values():
                shared.host.close()
            os.close(held)
        return True

    @contextlib.contextmanager
    def _listening(self) -> Any:
        self._path.unlink(missing_ok=True)  # left by one that was killed: we hold the lock
        server = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            server.bind(str(self._path))
        finally:
            os.umask(before)
        server.listen(256)
        server.settimeout(_LOOK)
        try:
            yield server
        finally:
            # The path first: who comes now starts a new agent instead of talking to one that leaves.
            self._path.unlink(missing_ok=True)
            server.close()

    def _accept(self, server: socket.socket) -> None:
        while not self._stopping.is_set() and not self._idle_too_long():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            pipe = SocketPipe(connection)
            threading.Thread(target=self._client, args=(pipe,), daemon=True).start()

    def _idle_too_long(self) -> bool:
        with self._lock:
            kept = any(shared.interactive and shared.host.connected for shared in self._hosts.values())
            if self._clients or kept:
                self._used = time.monotonic()
            return time.monotonic() - self._used > self._idle

    def _client(self, pipe: SocketPipe) -> None:
        try:
            asked = pipe.hear()
            want = asked.get("want")
            with self._lock:
                self._clients[pipe] = str(want)
            self._check(asked)
            self._wants[str(want)](pipe, asked)
        except DagsterSlurmError as error:
            told = error if isinstance(error, HostError) else HostRefusedError(str(error))
            with contextlib.suppress(OSError):
                pipe.say(wire.failure(told))
        except OSError:
            pass  # the client has gone
        finally:
            with self._lock:
                self._clients.pop(pipe, None)
                self._used = time.monotonic()
            pipe.close()

    def _check(self, asked: dict[str, Any]) -> None:
        """Raise unless the client is of our version; an agent that nobody else uses makes room for a new one."""
        if asked.get("want") not in self._wants:
            raise HostRefusedError(f"the agent does not know {asked.get('want')!r}")
        if asked.get("version") == place.version() or asked["want"] in ("stop", "status"):
            return
        with self._lock:
            others = [want for want in self._clients.values() if want == "host"]
            busy = len(others) > (asked["want"] == "host")
        what = f"the agent (pid {os.getpid()}) is of version {place.version()}, not {asked.get('version')}"
        if busy:
            raise HostRefusedError(what, hint="End what still uses it, or run: dg-slurm agent stop")
        self._stopping.set()
        raise HostUnreachableError(f"{what}; it makes room now")

    def _shared(self, asked: dict[str, Any]) -> SharedHost:
        text = asked["host"]
        with self._lock:
            if text not in self._hosts:
                try:
                    self._hosts[text] = SharedHost(SshHost.model_validate_json(text), self._folder)
                except pydantic.ValidationError as error:
                    raise HostRefusedError(f"the agent can't read the host: {error}") from error
            return self._hosts[text]

    def _forward(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        """Forward a client's calls until it ends."""
        shared = self._shared(asked)
        writing = threading.Lock()
        turns = threading.BoundedSemaphore(_TURNS)

        def answer(request: dict[str, Any], blob: bytes) -> None:
            try:
                frame = _reply(shared, request, blob)
                with writing, contextlib.suppress(OSError):  # the client may have gone
                    pipe.write(frame)
            finally:
                turns.release()

        pipe.say({"ok": True})
        while True:
            try:
                frame = read_frame(pipe.read)
            except FrameError:
                return  # the client ended within a frame
            if frame is None:
                return
            turns.acquire()
            self._pool.submit(answer, *frame)

    def _login(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        def person(prompt: Prompt) -> str:
            pipe.say({"ok": True, "prompt": vars(prompt)})
            try:
                return str(pipe.hear()["answer"])
            except OSError as error:
                raise HostRefusedError("nobody answered", where=prompt.host) from error

        shared = self._shared(asked)
        pipe.say({"ok": True, "already": shared.login(person), "host": shared.host.name})

    def _status(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        with self._lock:
            hosts = list(self._hosts.values())
            clients = sum(want == "host" for want in self._clients.values())
        found = [shared.status() for shared in hosts]
        about = {"pid": os.getpid(), "version": place.version(), "since": self._began, "clients": clients}
        pipe.say({"ok": True, **about, "hosts": found})

    def _stop(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        self._stopping.set()
        pipe.say({"ok": True, "pid": os.getpid()})


def _reply(shared: SharedHost, request: dict[str, Any], blob: bytes) -> bytes:
    """Do a client's call and return the reply's frame."""
    number = {"id": request.get("id")}
    try:
        reply = shared.call(request["op"], request["params"], blob, float(request["timeout"]))
        return encode_frame({**number, "ok": True, "result": dict(reply.result)}, reply.blob)
    except HostError as error:
        return encode_frame({**number, **wire.failure(error)})
    except (KeyError, TypeError, ValueError) as error:
        wrong = HostRefusedError(f"the agent can't read the call: {error!r}")
        return encode_frame({**number, **wire.failure(wrong)})
