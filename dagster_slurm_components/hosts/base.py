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

    def close(self) -> None:
        """End the connection; a later call makes a new one."""
