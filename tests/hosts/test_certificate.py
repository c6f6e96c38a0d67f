"""Certificates of ssh-keygen: how long they are good for, and what an expired one does to a login."""

from __future__ import annotations

import getpass
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sshd_fixture import Sshd, make_key

from dagster_slurm_components.errors import HostRefusedError, LoginRequiredError
from dagster_slurm_components.hosts.certificate import Validity, validity
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer

pytestmark = pytest.mark.ssh


def signed(key: Path, ca: Path, interval: str) -> Path:
    user = getpass.getuser()
    command = ["ssh-keygen", "-q", "-s", str(ca), "-I", "ada", "-n", user, "-V", interval, f"{key}.pub"]
    subprocess.run(command, check=True, capture_output=True)
    return key


def test_the_end_of_a_certificate_is_told_in_local_time(tmp_path: Path) -> None:
    ca = make_key(tmp_path / "ca")
    before = time.time()
    good = validity(str(signed(make_key(tmp_path / "good"), ca, "-5m:+2h")))
    assert good is not None
    assert good.until is not None
    assert before - 60 <= good.until - 7200 <= time.time() + 60
    assert str(good) == f"expires at {time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(good.until))}"
    old = validity(str(signed(make_key(tmp_path / "old"), ca, "-2h:-1h")))
    assert old is not None
    assert old.over
    assert str(old).startswith("expired at ")
    assert str(Validity(None)) == "never expires"
    assert validity(str(make_key(tmp_path / "plain"))) is None


@pytest.mark.parametrize("steps", [["certificate"], ["key"]])
def test_a_certificate_logs_in(sshd_factory: Callable[..., Sshd], tmp_path: Path, steps: list[str]) -> None:
    ca = make_key(tmp_path / "ca")
    server = sshd_factory(f"TrustedUserCAKeys {ca}.pub", "AuthorizedKeysFile none")
    key = signed(make_key(tmp_path / "key"), ca, "-5m:+2h")
    host = RemoteHost(SshDialer(server.spec(key_file=str(key), login=steps)))
    assert Satellite(host).hello().user == getpass.getuser()
    host.close()
    with pytest.raises(HostRefusedError):
        RemoteHost(SshDialer(server.spec(key_file=str(make_key(tmp_path / "bare"))))).call("ping", {})


def test_f05_an_expired_certificate_asks_for_a_new_one_and_is_not_sent(sshd: Sshd, tmp_path: Path) -> None:
    key = signed(make_key(tmp_path / "key"), make_key(tmp_path / "ca"), "-2h:-1h")
    with pytest.raises(LoginRequiredError, match="its certificate expired at") as caught:
        RemoteHost(SshDialer(sshd.spec(key_file=str(key), login=["certificate"]))).call("ping", {})
    assert "Renew" in str(caught.value)
