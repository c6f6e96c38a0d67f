"""A real sshd on a free loopback port, with its own keys, for the current user.

Import what a test module needs: ``from sshd_fixture import sshd, sshd_factory  # noqa: F401``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port
from waiting import PATIENCE

from dagster_slurm_components.spec.hosts import SshHost
from slurm_testcluster.process import descendants

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PRIVILEGE_SEPARATION = Path("/run/sshd")


def why_not() -> str | None:
    """Return why sshd can't be started here."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        return "no sshd on this machine (apt-get install openssh-server)"
    if not PRIVILEGE_SEPARATION.is_dir():
        if os.getuid() != 0:
            return f"sshd needs the folder {PRIVILEGE_SEPARATION}, and only root can make it"
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, parents=True, exist_ok=True)
    return None


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def processes_below(parent: int) -> list[int]:
    """Return all descendants of a process."""
    return sorted(descendants([parent]) - {parent})


def is_sshd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "comm").read_text().strip().startswith(("sshd", "dgslurm-sshd"))
    return False


class Sshd:
    """One sshd. Its keys and files lie in ``folder``; ``options`` are further lines of its configuration."""

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.host_key = make_key(folder / "host_key")
        self.client_key = make_key(folder / "client_key")
        self.known_hosts = folder / "known_hosts"
        self.log = folder / "sshd.log"
        (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
        self.trust(self.host_key)
        self._config = folder / "sshd_config"
        self._options = options
        self._program = program or str(SSHD)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def trust(self, key: Path) -> None:
        """Let the known_hosts file list exactly this key."""
        public = Path(f"{key}.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")

    def spec(self, **changes: object) -> SshHost:
        """Return how to reach it."""
        values: dict[str, object] = {
            "hostname": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": str(self.client_key),
            "known_hosts_file": str(self.known_hosts),
            "connect_timeout": 10,
        }
        return SshHost.model_validate(values | changes)

    def start(self) -> None:
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"PidFile {self.folder / 'sshd.pid'}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "PrintMotd no",
            *self._options,
        ]
        # The first value of a keyword counts in sshd_config: the options go first.
        self._config.write_text("\n".join([*self._options, *lines]) + "\n")
        with self.log.open("ab") as log:
            command = [self._program, "-D", "-e", "-f", str(self._config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"sshd did not start:\n{self.log.read_text()}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it and every session."""
        if self._process is None:
            return
        below = [pid for pid in processes_below(self.pid) if is_sshd(pid)]
        self._process.kill()
        self._process.wait()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process = None

    def cut(self) -> int:
        """Kill the processes that hold the connections, as a crash of the machine would; return how many."""
        holders = [pid for pid in processes_below(self.pid) if is_sshd(pid)]
        for pid in holders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(holders)

    def logins(self) -> int:
        """Return how many logins it has accepted so far."""
        return self.log.read_text().count("Accepted ")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder and no ssh agent: the developer's own must not decide a test."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def sshd_factory(tmp_path: Path, own_home: Path) -> Iterator[Callable[..., Sshd]]:
    """Start sshds: ``sshd_factory("MaxSessions 1")``."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    started: list[Sshd] = []

    def start(*options: str) -> Sshd:
        server = Sshd(tmp_path / f"sshd{len(started)}", *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def sshd(sshd_factory: Callable[..., Sshd]) -> Sshd:
    """A started sshd."""
    return sshd_factory()
