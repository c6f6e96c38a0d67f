"""A login node that gives a user few processes: what can't be done now is waited for, and the satellite lives."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from satellite_fixture import FakeSlurm, bundle
from sshd_fixture import Sshd
from waiting import PATIENCE

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.parked import ParkedHost, Parking
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer

SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
NEEDS = (os.getuid() == 0, shutil.which("setpriv"), SYSTEM_PYTHON)
pytestmark = [
    pytest.mark.ssh,
    pytest.mark.skipif(
        not all(NEEDS), reason="root is needed to become a user with a limit, and setpriv, python3"
    ),
]


@pytest.fixture
def user() -> int:
    """A user whom nobody else is, so that the processes of others don't count."""
    return random.randint(100_000, 2**20)


@pytest.fixture
def slurm(user: int) -> Iterator[FakeSlurm]:
    """Slurm in a folder of that user; pytest's own folders are closed above it."""
    with tempfile.TemporaryDirectory(prefix="dg-slurm-") as folder:
        made = FakeSlurm(Path(folder))
        for path in (made.folder, made.jobs_file):
            os.chown(path, user, user)
        made.folder.chmod(0o755)
        yield made


LIMIT = 60
CROWD = f"""
import sys, threading
for _ in range({LIMIT}):
    threading.Thread(target=sys.stdin.buffer.peek, args=(1,), daemon=True).start()
print("here", flush=True)
sys.stdin.buffer.read()
"""
"""As many threads, each of which counts as a process."""


class Limited:
    """A satellite of an ordinary user over ssh, who may have so many processes."""

    def __init__(self, server: Sshd, user: int) -> None:
        self.server = server
        self._become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        self.host = RemoteHost(SshDialer(server.spec(python=SYSTEM_PYTHON)), interval=0.1)
        self.satellite = Satellite(self.host)
        self._crowd: subprocess.Popen[bytes] | None = None

    def fill(self) -> None:
        """Let the user's other programs take all that there may be."""
        command = [*self._become, str(SYSTEM_PYTHON), "-c", CROWD]
        self._crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._crowd.stdout is not None
        assert self._crowd.stdout.readline() == b"here\n"

    def free(self) -> None:
        """Let them end."""
        if self._crowd is not None:
            self._crowd.kill()
            self._crowd.communicate()


@pytest.fixture
def limited(sshd_factory, user: int) -> Iterator[Limited]:
    become = f"exec setpriv --reuid={user} --regid={user} --clear-groups"
    limit = f'bash -c "ulimit -u {LIMIT}; $SSH_ORIGINAL_COMMAND"'
    made = Limited(sshd_factory(f"ForceCommand {become} {limit}"), user)
    assert made.satellite.run(["bash", "-c", "ulimit -u"]).stdout == f"{LIMIT}\n".encode()
    yield made
    made.host.close()
    made.free()


def test_f51_out_of_processes_ends_one_call_and_not_the_satellite(limited: Limited) -> None:
    limited.fill()
    for _ in range(3):
        with pytest.raises(
            HostUnreachableError, match="no process, thread, file or memory is left"
        ) as caught:
            limited.satellite.run(["true"])
        assert "Resource temporarily unavailable" in str(caught.value)
    assert limited.satellite.disk("/").total, "what needs no process goes on"
    limited.free()
    assert limited.satellite.run(["echo", "on"]).stdout == b"on\n"
    assert limited.server.logins() == 1


def test_out_of_threads_calls_share_those_that_are_there(limited: Limited) -> None:
    limited.fill()
    results: list[int] = []
    callers = [
        threading.Thread(target=lambda: results.append(limited.satellite.disk("/").total)) for _ in range(20)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
    assert len(results) == 20
    assert limited.host.connected


def test_f51_a_submission_waits_until_a_process_is_to_be_had(limited: Limited, slurm: FakeSlurm) -> None:
    told: list[str] = []

    def sleep(seconds: float) -> None:
        if len(told) == 1:
            limited.free()
        time.sleep(min(seconds, 0.1))

    limited.fill()
    patient = Satellite(ParkedHost(limited.host, Parking(60, told.append, sleep)))
    reply = patient.submit(slurm.request(slurm.folder / "work", window=300), bundle({"job.sh": ""}))
    assert (reply.outcome, [reply.job_id]) == ("submitted", slurm.jobs()), "and not after the window"
    assert "is left for this user there" in told[0]
    assert "answers again" in told[-1]
    assert limited.server.logins() == 1
