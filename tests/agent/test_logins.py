"""Passwords, one-time passwords and several hops: asked once, from the SSH protocol, kept in memory alone."""

from __future__ import annotations

import contextlib
import getpass
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from pam_fixture import PASSWORD, Pam
from sshd_fixture import Sshd, make_key
from waiting import PATIENCE

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError, LoginRequiredError
from dagster_slurm_components.hosts.agent import client
from dagster_slurm_components.hosts.agent.client import AgentDialer
from dagster_slurm_components.hosts.answers import Answers, Prompt
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.spec.hosts import SshHost

pytestmark = pytest.mark.ssh

Start = Callable[..., tuple[Sshd, Pam]]


def through_agent(spec: SshHost) -> RemoteHost:
    return RemoteHost(AgentDialer(spec), interval=0.05, channels=1)


def until_login_required(host: RemoteHost) -> None:
    """Call until the loss is noticed and the pause before the next attempt is over."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            host.call("ping", {})
        except LoginRequiredError:
            return
        except HostUnreachableError:
            pass
        time.sleep(0.1)
    raise AssertionError("the lost login was not told")


def anywhere_on_disk(secret: str) -> list[Path]:
    """Return the files of logins under way, and the processes' arguments and environments, that hold a secret."""
    places = [*Path(tempfile.gettempdir()).glob("dg-slurm-*/*"), *Path("/proc").glob("[0-9]*/cmdline")]
    found = []
    for path in [*places, *Path("/proc").glob("[0-9]*/environ")]:
        with contextlib.suppress(OSError):  # a socket, or gone meanwhile
            if secret.encode() in path.read_bytes():
                found.append(path)
    return found


def nobody(prompt: Prompt) -> str:
    raise AssertionError(f"nobody should be asked: {prompt}")


class TestOnePasswordAndOneTimePassword:
    def test_f05_steps_wait_for_the_login_and_then_go_on(
        self, pam_sshd: Start, agent_folder: Path, tmp_path: Path
    ) -> None:
        server, pam = pam_sshd("password otp", "AuthenticationMethods keyboard-interactive")
        spec = server.spec(login=["password", "otp"], key_file=None, reconnect_interval=0.2)
        host = through_agent(spec)
        with pytest.raises(LoginRequiredError, match="asks for password and otp") as caught:
            host.call("ping", {})
        assert "dg-slurm login" in str(caught.value)
        assert "Failed" not in server.log.read_text(), "no login was tried that nobody could answer"
        prompts: list[Prompt] = []

        def person(prompt: Prompt) -> str:
            prompts.append(prompt)
            assert not anywhere_on_disk(PASSWORD), "nor while ssh asks"
            return PASSWORD if prompt.kind == "password" else pam.otp()

        assert client.login(spec, person)["already"] is False
        assert [prompt.kind for prompt in prompts] == ["password", "otp"]
        assert "One-time password" in prompts[1].text
        for number in range(3):  # further processes: no further login
            other = through_agent(spec)
            assert Satellite(other).run(["echo", str(number)]).stdout == f"{number}\n".encode()
            other.close()
        assert server.logins() == 1
        assert client.login(spec, nobody)["already"] is True
        server.cut()
        until_login_required(host)
        assert client.login(spec, person)["already"] is False
        host.call("ping", {})
        assert server.logins() == 2
        host.close()
        for path in [*agent_folder.iterdir(), *tmp_path.rglob("*.log")]:
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes(), path

    def test_wrong_answers_are_told_and_not_tried_again(self, pam_sshd: Start) -> None:
        server, _ = pam_sshd("password otp", "AuthenticationMethods keyboard-interactive")
        spec = server.spec(login=["password", "otp"], key_file=None)
        answers = Answers()
        dialer = SshDialer(spec, answers, pauses=())
        with (
            answers.asking(lambda prompt: "wrong"),
            pytest.raises(HostRefusedError, match="not accepted"),
        ):
            dialer.dial()
        before = server.log.read_text().count("Connection from") + server.log.read_text().count("Failed")
        with pytest.raises(LoginRequiredError):
            dialer.dial()
        assert server.log.read_text().count("Failed") <= before


def test_a_password_alone_is_kept_for_the_next_connection(pam_sshd: Start, agent_folder: Path) -> None:
    server, _ = pam_sshd("password", "PasswordAuthentication yes")
    spec = server.spec(login=["password"], key_file=None, reconnect_interval=0.1)
    client.login(spec, lambda prompt: PASSWORD)
    host = through_agent(spec)
    host.call("ping", {})
    server.cut()
    deadline = time.monotonic() + PATIENCE
    while server.logins() < 2:
        assert time.monotonic() < deadline
        try:
            host.call("ping", {})
        except HostUnreachableError:
            time.sleep(0.1)
    host.close()


def test_a_key_and_a_one_time_password(pam_sshd: Start, agent_folder: Path) -> None:
    server, pam = pam_sshd("otp", "AuthenticationMethods publickey,keyboard-interactive")
    spec = server.spec(login=["key", "otp"])
    asked: list[str] = []

    def person(prompt: Prompt) -> str:
        asked.append(prompt.kind)
        return pam.otp()

    client.login(spec, person)
    host = through_agent(spec)
    assert Satellite(host).hello().user
    assert asked == ["otp"]
    host.close()


def test_each_hop_has_its_own_way(pam_sshd: Start, agent_folder: Path) -> None:
    bastion, pam = pam_sshd("password otp", "AuthenticationMethods keyboard-interactive")
    target, _ = pam_sshd("password", "AuthenticationMethods keyboard-interactive")
    target.known_hosts.write_text(target.known_hosts.read_text() + bastion.known_hosts.read_text())
    jump = {"hostname": "127.0.0.1", "port": bastion.port, "login": ["password", "otp"]}
    spec = target.spec(login=["password"], key_file=None, jump=[jump])
    asked: list[tuple[str, str]] = []

    def person(prompt: Prompt) -> str:
        asked.append((prompt.host.rpartition(":")[2], prompt.kind))
        return PASSWORD if prompt.kind == "password" else pam.otp()

    client.login(spec, person)
    ports = (str(bastion.port), str(target.port))
    assert asked == [(ports[0], "password"), (ports[0], "otp"), (ports[1], "password")]
    host = through_agent(spec)
    assert Satellite(host).hello().user
    host.close()


def test_several_hops_each_with_its_own_way(
    pam_sshd: Start, sshd_factory: Callable[..., Sshd], agent_folder: Path
) -> None:
    outer, pam = pam_sshd("password otp", "AuthenticationMethods keyboard-interactive")
    inner = sshd_factory()
    target, _ = pam_sshd("password", "AuthenticationMethods keyboard-interactive")
    known = [server.known_hosts.read_text() for server in (outer, inner, target)]
    target.known_hosts.write_text("".join(known))
    jump = [
        {"hostname": "127.0.0.1", "port": outer.port, "login": ["password", "otp"]},
        {"hostname": "127.0.0.1", "port": inner.port, "key_file": str(inner.client_key)},
    ]
    spec = target.spec(login=["password"], key_file=None, jump=jump)
    asked: list[tuple[str, str]] = []

    def person(prompt: Prompt) -> str:
        asked.append((prompt.host.rpartition(":")[2], prompt.kind))
        return PASSWORD if prompt.kind == "password" else pam.otp()

    client.login(spec, person)
    assert asked == [(str(outer.port), "password"), (str(outer.port), "otp"), (str(target.port), "password")]
    host = through_agent(spec)
    assert Satellite(host).run(["echo", "there"]).stdout == b"there\n"
    assert (outer.logins(), inner.logins(), target.logins()) == (1, 1, 1)
    host.close()


def test_the_end_of_a_certificate_is_told_at_the_login(
    sshd_factory: Callable[..., Sshd], agent_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, key = make_key(tmp_path / "ca"), make_key(tmp_path / "key")
    sign = [
        "ssh-keygen",
        "-q",
        "-s",
        str(ca),
        "-I",
        "ada",
        "-n",
        getpass.getuser(),
        "-V",
        "-5m:+2h",
        f"{key}.pub",
    ]
    subprocess.run(sign, check=True, capture_output=True)
    server = sshd_factory(f"TrustedUserCAKeys {ca}.pub", "AuthorizedKeysFile none")
    spec = server.spec(type="ssh", login=["certificate"], key_file=str(key))
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "site.yaml").write_text(
        f"host: {spec.model_dump_json(exclude_unset=True, exclude_none=True)}\nworkdir: /tmp/x\n"
    )
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["login", "site"])
    assert done.exit_code == 0, done.output
    assert f"The certificate of {key} expires at {time.strftime('%Y-')}" in done.output
    assert time.strftime("%Z") in done.output


def test_a_command_may_answer(pam_sshd: Start, tmp_path: Path) -> None:
    server, _ = pam_sshd("password", "AuthenticationMethods keyboard-interactive")
    command = tmp_path / "my secrets"
    secret = tmp_path / "word"
    secret.write_text(PASSWORD + "\n")
    command.write_text(f'#!/bin/sh\n[ "$DG_SLURM_KIND" = password ] && cat "{secret}"\n')
    command.chmod(0o700)
    spec = server.spec(login=["password"], key_file=None, secret_command=[str(command)])
    host = RemoteHost(SshDialer(spec))
    assert Satellite(host).hello().user
    host.close()
    command.write_text("#!/bin/sh\necho it failed >&2; exit 3\n")
    with pytest.raises(HostRefusedError, match="status 3 and no answer: it failed"):
        RemoteHost(SshDialer(spec)).call("ping", {})


def test_the_terminal_is_asked_once(
    pam_sshd: Start, agent_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pam = pam_sshd("password otp", "AuthenticationMethods keyboard-interactive")
    project = tmp_path / "project"
    (project / "profiles").mkdir(parents=True)
    spec = server.spec(type="ssh", login=["password", "otp"], key_file=None)
    (project / "profiles" / "site.yaml").write_text(
        f"host: {spec.model_dump_json(exclude_unset=True, exclude_none=True)}\nworkdir: /tmp/x\nscheduler: slurm\n"
    )
    monkeypatch.chdir(project)
    runner = CliRunner()
    done = runner.invoke(main, ["login", "site"], input=f"{PASSWORD}\n{pam.otp()}\n")
    assert done.exit_code == 0, done.output
    assert "One-time password" in done.output
    assert f"Logged in: root@127.0.0.1:{server.port}" in done.output or "Logged in: " in done.output
    assert PASSWORD not in done.output
    again = runner.invoke(main, ["login", "site"])
    assert "Logged in already" in again.output
    shown = runner.invoke(main, ["status"])
    assert re.search(rf"127\.0\.0\.1:{server.port}\tsite\tconnected", shown.output), shown.output
    stopped = runner.invoke(main, ["agent", "stop"])
    assert "has ended" in stopped.output
    assert "No agent runs" in runner.invoke(main, ["status"]).output


def test_the_agent_stays_while_a_persons_login_lives(
    pam_sshd: Start, agent_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_SLURM_AGENT_IDLE", "0.5")
    server, _ = pam_sshd("password", "AuthenticationMethods keyboard-interactive")
    spec = server.spec(login=["password"], key_file=None)
    client.login(spec, lambda prompt: PASSWORD)
    threading.Event().wait(4)
    assert client.status() is not None
    server.stop()
    deadline = time.monotonic() + PATIENCE
    while client.status() is not None:
        assert time.monotonic() < deadline
        time.sleep(1.6)  # each look is a client


def test_a_time_based_password_is_not_used_twice(tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    codes.write_text("111111\n")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            codes.write_text("222222\n")

    answers = Answers(["cat", str(codes)], sleep)
    asked = Prompt("ada@login:22", "otp", "Code:")
    assert answers.answer(asked) == "111111"
    assert answers.answer(Prompt("ada@other:22", "otp", "Code:")) == "111111", "another host has not seen it"
    assert (answers.answer(asked), len(slept)) == ("222222", 3)
    assert (answers.answer(asked), sum(slept[3:])) == ("222222", 60.0), (
        "a list of codes, perhaps: the host may judge"
    )
    assert answers.answer(Prompt("ada@login:22", "password", "Password:")) == "222222"
