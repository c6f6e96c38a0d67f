"""How long an ssh certificate is good for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

_FOREVER = 2**64 - 1


@dataclass(frozen=True)
class Validity:
    """The end of a certificate.

    Attributes:
        until: Epoch, or nothing when it never ends.
    """

    until: float | None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.until is not None and self.until < time.time()

    def __str__(self) -> str:
        """Say it in local time."""
        if self.until is None:
            return "never expires"
        when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.until))
        return f"{'expired' if self.over else 'expires'} at {when}"


def validity(key_file: str) -> Validity | None:
    """Return how long the certificate beside a private key is good for; nothing when there is none.

    Raises:
        ValueError: The certificate can't be read.
    """
    path = Path(f"{key_file}-cert.pub").expanduser()
    if not path.is_file():
        return None
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - heavy
        SSHCertificate,
        load_ssh_public_identity,
    )

    found = load_ssh_public_identity(path.read_bytes())
    if not isinstance(found, SSHCertificate):
        return None
    end = found.valid_before
    return Validity(None if end >= _FOREVER else float(end))
