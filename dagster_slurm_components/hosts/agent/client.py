"""Talking to the agent, and starting it when there is none."""

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts import wire
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.answers import Prompt
from dagster_slurm_components.hosts.base import Pipe, address
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.wire import SocketPipe
from dagster_slurm_components.spec.hosts import SshHost

_START = 60.0
"""Seconds for the agent to start; on a busy machine Python alone may take many."""


class AgentDialer:
    """Reaches a host through the agent."""

    INTERVAL = 0.5
    """Seconds between two attempts to reach the agent itself; those to the host are the agent's affair."""

    def __init__(self, spec: SshHost) -> None:
        self._spec = spec
        self.name = address(spec)

    def dial(self) -> Pipe:
        """Return a pipe through the agent; see ``Dialer``."""
        return self._asked("host")

    def open(self) -> Pipe:
        """Let the agent open a further session; see ``Dialer``."""
        return self._asked("stream")

    def _asked(self, want: str) -> Pipe:
        with contextlib.ExitStack() as undo:
            pipe = undo.enter_context(contextlib.closing(connected()))
            ask(pipe, want, host=described(self._spec))
            undo.pop_all()
        return pipe

    def extend(self) -> Pipe | None:
        """Return nothing: the agent itself shares large transfers among the channels of its connection."""
        return None


def described(spec: SshHost) -> str:
    """Return a host as the agent reads it: what is not set stays open for ``~/.ssh/config``."""
    return spec.model_dump_json(exclude_unset=True, exclude={"type"})  # it has no other


def status() -> dict[str, Any] | None:
    """Return what the agent says of itself, or nothing when none runs."""
    return _if_running("status")


def stop() -> dict[str, Any] | None:
    """End the agent and with it all connections; return what it said, or nothing when none ran."""
    said = _if_running("stop")
    deadline = time.monotonic() + _START
    while said is not None and _try() is not None:
        if time.monotonic() > deadline:
            raise HostUnreachableError(f"the agent (pid {said['pid']}) does not end")
        time.sleep(0.05)
    return said


def login(spec: SshHost, person: Callable[[Prompt], str]) -> dict[str, Any]:
    """Let the agent log in and ask a person what the host asks; ``already`` says that a connection stood."""
    with contextlib.closing(connected()) as pipe:
        said = ask(pipe, "login", host=described(spec))
        while "prompt" in said:
            said = _talk(pipe, {"answer": person(Prompt(**said["prompt"]))})
    return said


def ask(pipe: SocketPipe, want: str, **more: Any) -> dict[str, Any]:
    """Say what the connection is for and return the agent's answer; raises HostError when that is no."""
    keys = {"ssh_auth_sock": os.environ.get("SSH_AUTH_SOCK", "")}
    return _talk(pipe, {"want": want, "version": place.version(), **keys, **more})


def connected() -> SocketPipe:
    """Return a connection to the agent, which is started if none runs; raises HostError when that can't be done.

    Of many processes that find none, one starts it and the others wait: they queue at a lock.
    """
    pipe = _try()
    if pipe is not None:
        return pipe
    folder = place.folder()
    with locked(os.fsencode(folder / "start.lock"), math.inf):
        return _try() or _start(folder)  # somebody before us in the queue may have started it


def _if_running(want: str) -> dict[str, Any] | None:
    pipe = _try()
    if pipe is None:
        return None
    with contextlib.closing(pipe), contextlib.suppress(HostUnreachableError):  # it ended meanwhile
        return ask(pipe, want)
    return None


def _talk(pipe: SocketPipe, header: dict[str, Any]) -> dict[str, Any]:
    try:
        pipe.say(header)
        said = pipe.hear()
    except OSError as error:
        raise HostUnreachableError(f"the agent was lost: {error}") from error
    if not said["ok"]:
        raise wire.error_of(said, "agent")
    return said


def _try() -> SocketPipe | None:
    with contextlib.ExitStack() as undo, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        connection = undo.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(place.address())
        undo.pop_all()
        return SocketPipe(connection)
    return None


def _start(folder: Path) -> SocketPipe:
    log = folder / "log"
    # The way this process found the package is the agent's, too.
    paths = os.pathsep.join(filter(None, sys.path))
    # Its own session, no standard streams and no inherited files: it outlives us, whoever waits for our end.
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_slurm_components.hosts.agent.server"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**os.environ, place.FOLDER: str(folder), "PYTHONPATH": paths},
            start_new_session=True,
        )
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        pipe = _try()
        if pipe is not None:
            return pipe
        if process.poll() not in (None, 0):
            said = log.read_text(errors="replace").strip()
            hint = f"Set {place.SWITCH}=off to connect without it."
            raise HostRefusedError(f"the agent did not start: {said}", hint=hint)
        time.sleep(0.02)
    raise HostUnreachableError(f"the agent did not start within {_START:g} s", where=str(log))
