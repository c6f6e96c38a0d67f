"""What a host is to everyone else: something that answers calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dagster_slurm_components.spec.hosts import JumpHost, SshHost


def address(host: SshHost | JumpHost, user: str | None = None) -> str:
    """Return ``user@hostname:port`` for messages; ``user`` is who logs in unless the host says so itself."""
    user = host.user or user
    return f"{user}@" * bool(user) + f"{host.hostname}:{host.port}"


@dataclass(frozen=True)
class Reply:
    """The answer to a call: the operation's result, JSON values, and raw bytes that belong to it."""

    result: Mapping[str, Any]
    blob: bytes = b""


class Pipe(Protocol):
    """A duplex stream of bytes that ends when either side closes it."""

    def read(self, size: int) -> bytes:
        """Return at least one and at most ``size`` bytes; none at the stream's end."""

    def write(self, data: bytes) -> None:
        """Write all of it; raises OSError when the stream is closed."""

    def close(self) -> None:
        """End the stream, waking whoever reads it; may be called more than once."""


class Host(Protocol):
    """A machine that does the satellite's operations; safe to use from many threads."""

    @property
    def name(self) -> str:
        """``local`` or ``user@hostname:port``."""

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation of the satellite, with JSON parameters and raw bytes.

        ``timeout`` is the seconds to wait once the connection stands; longer than any timeout among the parameters.

        Raises:
            HostUnreachableError: The host can't be reached, or was lost and may or may not have done the call.
            HostRefusedError: The host, or our check of it, said no.
            SatelliteError: The operation failed; its ``code`` says how.
        """

    def open(self) -> Pipe:
        """Return a pipe to a further satellite there, on the same connection; it is the caller's alone.

        Raises:
            HostUnreachableError: The host can't be reached.
            HostRefusedError: It allows no further session on the connection.
        """

    def close(self) -> None:
        """End the connection; a later call makes a new one."""
