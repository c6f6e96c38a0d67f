"""What the ssh program is told, and logins that are renewed outside of this package (``dialer: ssh``)."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from ports import free_port
from sshd_fixture import Sshd, make_key
from waiting import PATIENCE

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError, LoginRequiredError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.spec.hosts import SshHost

pytestmark = pytest.mark.ssh


def call(spec: SshHost) -> bytes:
    host = RemoteHost(SshDialer(spec))
    try:
        return Satellite(host).run(["echo", "it's", "here"]).stdout
    finally:
        host.close()


def test_calls_go_through_the_ssh_program(sshd: Sshd) -> None:
    assert call(sshd.spec(dialer="ssh")) == b"it's here\n"
    assert sshd.logins() == 1


def test_f06_an_unknown_or_changed_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    known = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("")
    with pytest.raises(HostRefusedError, match="is not known"):
        call(sshd.spec(dialer="ssh"))
    sshd.known_hosts.write_text(f"@revoked {known}")
    with pytest.raises(HostRefusedError, match="is revoked"):
        call(sshd.spec())
    sshd.trust(make_key(tmp_path / "other"))
    with pytest.raises(HostRefusedError, match="CHANGED"):
        call(sshd.spec(dialer="ssh"))
    assert sshd.logins() == 0


def test_a_login_that_is_not_accepted_asks_for_a_renewal(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(LoginRequiredError, match="not accepted") as caught:
        call(sshd.spec(dialer="ssh", key_file=str(make_key(tmp_path / "wrong key"))))
    assert "kinit" in str(caught.value.hint)


def test_a_closed_port_is_unreachable(sshd: Sshd) -> None:
    with pytest.raises(HostUnreachableError, match="refused"):
        call(sshd.spec(port=free_port()))


@pytest.mark.parametrize("name", ["-oProxyCommand=touch", "a b", "$(touch x)", "*"])
def test_a_name_is_never_an_option_a_pattern_or_shell(name: str) -> None:
    for spec in (SshHost(hostname=name), SshHost(hostname="h", jump=[{"hostname": name}])):
        with pytest.raises(HostRefusedError, match="no host's name"):
            call(spec)


def test_a_jump_host_keeps_its_own_key_and_known_hosts(sshd_factory, tmp_path: Path) -> None:
    bastion, target = sshd_factory(), sshd_factory()
    both = bastion.known_hosts.read_text() + target.known_hosts.read_text()
    target.known_hosts.write_text(both)
    jump = {"hostname": "127.0.0.1", "port": bastion.port, "key_file": str(bastion.client_key)}
    assert call(target.spec(dialer="ssh", jump=[jump])) == b"it's here\n"
    assert (bastion.logins(), target.logins()) == (1, 1)


def test_a_satellite_that_is_killed_costs_no_login(sshd: Sshd) -> None:
    host = RemoteHost(SshDialer(sshd.spec()), interval=0.1)
    os.kill(host.call("hello", {}).result["pid"], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            host.call("ping", {})
            break
        except HostUnreachableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    host.close()
    assert sshd.logins() == 1


def test_nothing_is_left_when_the_connection_is_closed(sshd: Sshd) -> None:
    dialer = SshDialer(sshd.spec())
    host = RemoteHost(dialer)
    host.call("ping", {})
    assert dialer._connection is not None
    assert dialer._connection.folder.stat().st_mode & 0o777 == 0o700
    host.close()
    assert not dialer._connection.folder.exists()
    assert not dialer._connection.stands()


def test_a_temporary_folder_of_any_name_will_do(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a b%h $HOME"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    jump = {"hostname": "127.0.0.1", "port": sshd.port}
    assert call(sshd.spec(jump=[jump])) == b"it's here\n"


def test_a_machine_without_ssh_is_told(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostRefusedError, match="can't run ssh") as caught:
        call(sshd.spec())
    assert "Install" in str(caught.value.hint)


def test_a_forked_child_leaves_its_parents_connection_alone(sshd: Sshd) -> None:
    dialer = SshDialer(sshd.spec())
    host = RemoteHost(dialer)
    host.call("ping", {})
    assert dialer._connection is not None
    child = os.fork()
    if child == 0:
        dialer._connection.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert dialer._connection.stands()
    host.close()


def test_a_folder_that_a_killed_process_left_goes_with_the_next_login(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    old, held, young = (Path(tempfile.mkdtemp(prefix="dg-slurm-ssh-")) for _ in range(3))
    (old / "log0").touch()
    (held / "master").touch()
    for folder in (old, held):
        os.utime(folder, (0, 0))
    call(sshd.spec())
    assert [folder.exists() for folder in (old, held, young)] == [False, True, True]
    shutil.rmtree(tempfile.gettempdir())
