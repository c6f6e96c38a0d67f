"""The second dialer: the ssh program itself."""

from __future__ import annotations

import pytest
from sshd_fixture import Sshd, free_port, make_key

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError, LoginRequiredError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh_program import SshProgramDialer
from dagster_slurm_components.spec.hosts import SshHost

pytestmark = pytest.mark.ssh


def call(spec: SshHost) -> bytes:
    host = RemoteHost(SshProgramDialer(spec))
    try:
        return Satellite(host).run(["echo", "it's", "here"]).stdout
    finally:
        host.close()


def test_calls_go_through_the_ssh_program(sshd: Sshd) -> None:
    assert call(sshd.spec(dialer="ssh")) == b"it's here\n"
    assert sshd.logins() == 1


def test_f06_an_unknown_or_changed_key_is_refused(sshd: Sshd, tmp_path) -> None:
    sshd.known_hosts.write_text("")
    with pytest.raises(HostRefusedError, match="Host key verification failed"):
        call(sshd.spec())
    sshd.trust(make_key(tmp_path / "other"))
    with pytest.raises(HostRefusedError, match="CHANGED"):
        call(sshd.spec())
    assert sshd.logins() == 0


def test_a_login_that_is_not_accepted_asks_for_a_renewal(sshd: Sshd, tmp_path) -> None:
    with pytest.raises(LoginRequiredError, match="Permission denied") as caught:
        call(sshd.spec(key_file=str(make_key(tmp_path / "wrong key"))))
    assert "kinit" in str(caught.value.hint)


def test_a_closed_port_is_unreachable(sshd: Sshd) -> None:
    with pytest.raises(HostUnreachableError, match="refused"):
        call(sshd.spec(port=free_port()))


def test_the_command_line_asks_nothing_and_holds_no_shell() -> None:
    spec = SshHost(hostname="-oProxyCommand=touch", user="ada", jump=["b@bastion:2222"])
    argv = SshProgramDialer(spec).arguments("python3")
    assert argv[argv.index("--") + 1] == "-oProxyCommand=touch", "a name is never an option"
    assert {"-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-lada", "-Jb@bastion:2222"} <= set(argv)
