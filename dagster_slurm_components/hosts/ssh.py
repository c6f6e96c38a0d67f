"""The satellite over ssh: one connection, one channel."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paramiko

from dagster_slurm_components.errors import HostError, HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts import bootstrap, ssh_route
from dagster_slurm_components.hosts.answers import Answers
from dagster_slurm_components.hosts.channel import Pipe
from dagster_slurm_components.spec.hosts import SshHost

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
"""Seconds between attempts when sshd hangs up early: above MaxStartups (10 by default) it drops at random."""

_PIECE = 256 * 1024
_SESSION_TRIES = 5
_START_TIMEOUT = 60.0
"""Seconds for the login shell's own files and the satellite's start; both may lie on a slow network disk."""


class DroppedError(HostUnreachableError):
    """The host hung up before the login: it has too many newcomers, so trying again soon is right."""


class ChannelPipe:
    """A pipe to a command that runs behind an ssh channel."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self.transport = channel.get_transport()
        self.on_close: Callable[[], None] = channel.close

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        return self._channel.recv(size)

    def write(self, data: bytes) -> None:
        """Write all of it, in pieces: paramiko copies what is left after each packet of 32 KB."""
        for start in range(0, len(data), _PIECE):
            self._channel.sendall(data[start : start + _PIECE])

    def close(self) -> None:
        """End the channel, and what else belongs to it."""
        self.on_close()

    def ending(self) -> bootstrap.Ending:
        """Return how the command ended."""
        known = self._channel.status_event.wait(5.0) and self._channel.exit_status >= 0
        stderr = b""
        while self._channel.recv_stderr_ready():
            stderr += self._channel.recv_stderr(4096)
        return bootstrap.Ending(
            self._channel.exit_status if known else None, stderr.decode("utf-8", "replace")
        )


class SshDialer:
    """Reaches a host with fabric and paramiko.

    Args:
        spec: The host.
        answers: Who knows the login's secrets.
        pauses: Seconds before further attempts when the host drops newcomers.
        sleep: Waits between attempts.
        jitter: Between 0 and 1; keeps processes that were dropped together from coming back together.
    """

    def __init__(
        self,
        spec: SshHost,
        answers: Answers | None = None,
        *,
        pauses: Sequence[float] = PAUSES,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._spec = spec
        self._answers = answers or Answers(spec.secret_command)
        self._pauses = pauses
        self._sleep = sleep
        self._jitter = jitter
        self.name = f"{spec.user}@" * bool(spec.user) + f"{spec.hostname}:{spec.port}"

    def dial(self) -> Pipe:
        """Connect, log in and start the satellite; see ``Dialer``."""
        for pause in self._pauses:
            try:
                return self._dial_once()
            except DroppedError:
                self._sleep(pause * (0.5 + self._jitter()))
        return self._dial_once()

    def extend(self, pipe: Pipe) -> Pipe | None:
        """Open another session on the connection; see ``Dialer``."""
        return self._start(pipe.transport) if isinstance(pipe, ChannelPipe) else None

    def _dial_once(self) -> Pipe:
        route = ssh_route.connections(self._spec, self._answers)

        def hang_up() -> None:
            for connection in reversed(route):
                connection.client.close()

        try:
            for connection in route:
                self._open(connection)
            pipe = self._start(route[-1].transport)
        except BaseException:
            hang_up()
            raise
        pipe.on_close = _once(hang_up)
        return pipe

    def _open(self, connection: Any) -> None:
        where = ssh_route.connection_name(connection)
        try:
            if not connection.gateway:
                connection.connect_kwargs["sock"] = ssh_route.open_socket(
                    connection.host, int(connection.port), self._spec.connect_timeout
                )
            connection.open()
            connection.transport.set_keepalive(round(self._spec.keepalive))
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise _translated(error, where) from error

    def _start(self, transport: paramiko.Transport) -> ChannelPipe:
        found = []
        for python in bootstrap.PYTHONS:
            pipe = ChannelPipe(self._session(transport, bootstrap.shell_command(python)))
            try:
                bootstrap.boot(pipe, self.name, _START_TIMEOUT)
            except bootstrap.NoPythonError as error:
                found.append(f"  {python}: {error.message}")
            else:
                return pipe
        raise HostRefusedError(
            "no Python 3.6 or newer was found, which this package needs on the host:\n" + "\n".join(found),
            where=self.name,
        )

    def _session(self, transport: paramiko.Transport, command: str) -> paramiko.Channel:
        for remaining in reversed(range(_SESSION_TRIES)):
            try:
                channel = transport.open_session(timeout=self._spec.connect_timeout)
                channel.exec_command(command)
                return channel
            except paramiko.ChannelException as error:
                # sshd frees the place of an ended session a little late (MaxSessions).
                if not remaining:
                    raise HostRefusedError(
                        f"the host opens no session: {error.text}", where=self.name
                    ) from error
                self._sleep(0.2)
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise _translated(error, self.name) from error
        raise AssertionError("the last try returns or raises")


def _once(action: Callable[[], None]) -> Callable[[], None]:
    lock = threading.Lock()

    def act() -> None:
        if lock.acquire(blocking=False):
            action()

    return act


def _translated(error: Exception, where: str) -> HostError:
    """Return what an error while connecting means."""
    text = str(error) or type(error).__name__
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return HostRefusedError(f"no common algorithm: {text}", where=where)
    if isinstance(error, paramiko.ChannelException):  # from a jump host that can't reach the next one
        return HostUnreachableError(f"the jump host before it can't reach it: {text}", where=where)
    if isinstance(error, paramiko.AuthenticationException):
        return HostUnreachableError(f"the login did not end in time: {text}", where=where)
    if isinstance(error, paramiko.SSHException | EOFError | ConnectionResetError | BrokenPipeError):
        return DroppedError(f"the host hung up: {text}", where=where)
    return HostUnreachableError(f"can't connect: {text}", where=where)
