"""How long an ssh certificate is good for."""

import calendar
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Validity:
    """The end of a certificate: an epoch, or nothing when it never ends."""

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
    """Return how long the certificate beside a private key is good for; nothing when there is none."""
    path = Path(f"{key_file}-cert.pub").expanduser()
    if not path.is_file():
        return None
    done = subprocess.run(
        ["ssh-keygen", "-Lf", str(path)],
        env={**os.environ, "TZ": "UTC0", "LC_ALL": "C"},  # it prints local times, without their zone
        capture_output=True,
        text=True,
        check=False,
    )
    valid = re.search("Valid: (.*)", done.stdout)
    if valid is None:
        return None
    end = re.search(r"(?:to|before) (\S+)", valid[1])
    return Validity(float(calendar.timegm(time.strptime(end[1], "%Y-%m-%dT%H:%M:%S"))) if end else None)
