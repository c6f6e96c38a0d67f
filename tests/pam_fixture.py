"""A real sshd with PAM: a password, and one-time passwords from pam_oath, for the current user.

Its PAM service is one of the test's, so no account of the machine is touched. Only root can do that. Since 9.8 a
keyword names the service; an older sshd takes it from its own name, and runs under that of the test's.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sshd_fixture
from sshd_fixture import SSHD, Sshd

PASSWORD = "correct horse $(battery) 'staple'"
_SEED = "3132333435363738393031323334353637383930"
_MODULES = [Path(folder) for folder in ("/usr/lib", "/lib", "/lib64", "/usr/lib64")]


def why_not() -> str | None:
    """Return why no sshd with PAM can be started here."""
    if os.getuid() != 0:
        return "a PAM service needs root"
    if not any(found for folder in _MODULES for found in folder.glob("**/security/pam_oath.so")):
        return "no pam_oath (apt-get install libpam-oath)"
    if shutil.which("oathtool") is None:
        return "no oathtool"
    return sshd_fixture.why_not()


def _version() -> tuple[int, ...]:
    """Return the version of OpenSSH."""
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    assert found is not None, said
    return tuple(int(part) for part in found.groups())


class Pam:
    """The PAM service of one sshd."""

    def __init__(self, folder: Path, steps: str) -> None:
        self.name = f"dgslurm-sshd-{os.getpid()}-{steps.replace(' ', '-')}"
        self.service = Path("/etc/pam.d") / self.name
        self._counter = 0
        folder.mkdir()
        self.program, self.options = str(SSHD), [f"PAMServiceName {self.name}"]
        if _version() < (9, 8):
            self.program, self.options = str(shutil.copy(str(SSHD), folder / self.name)), []
        check = folder / "check"
        secret = folder / "secret"
        secret.write_bytes(PASSWORD.encode())
        check.write_text(f"#!/bin/sh\ntr -d '\\000' | cmp -s - {secret}\n")
        check.chmod(0o755)
        users = folder / "users.oath"
        users.write_text(f"HOTP {getpass.getuser()} - {_SEED}\n")
        users.chmod(0o600)
        auth = {
            "password": f"auth requisite pam_exec.so expose_authtok quiet {check}",
            "otp": f"auth requisite pam_oath.so usersfile={users} window=5 digits=6",
        }
        # pam_permit, as pam_exec alone sets no credentials, which sshd takes for a denial.
        given = [auth[step] for step in steps.split()]
        lines = [*given, "auth required pam_permit.so", "account required pam_permit.so"]
        self.service.write_text("\n".join([*lines, "session required pam_permit.so", ""]))

    def otp(self) -> str:
        """Return the next one-time password."""
        command = ["oathtool", "-c", str(self._counter), _SEED]
        self._counter += 1
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def pam_sshd(tmp_path: Path, own_home: Path) -> Iterator[Callable[..., tuple[Sshd, Pam]]]:
    """Start sshds: ``pam_sshd("password otp", "AuthenticationMethods keyboard-interactive")``."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    started: list[tuple[Sshd, Pam]] = []

    def start(steps: str, *options: str) -> tuple[Sshd, Pam]:
        pam = Pam(tmp_path / f"pam{len(started)}", steps)
        server = Sshd(
            tmp_path / f"pam-sshd{len(started)}",
            "UsePAM yes",
            "KbdInteractiveAuthentication yes",
            "PermitRootLogin yes",
            *pam.options,
            *options,
            program=pam.program,
        )
        started.append((server, pam))
        server.start()
        return server, pam

    yield start
    for server, pam in started:
        server.stop()
        pam.service.unlink()
