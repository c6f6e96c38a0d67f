"""The agent: one connection for all processes, whatever becomes of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from sshd_fixture import Sshd
from waiting import PATIENCE, eventually

from dagster_slurm_components.cli.main import main
from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.agent import client, place
from dagster_slurm_components.hosts.agent.client import AgentDialer
from dagster_slurm_components.hosts.agent.server import Agent
from dagster_slurm_components.hosts.attempts import note_waiting
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.connect import connect
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.calls import (
    AccountingQuery,
    Budget,
    FileRead,
    LeaseRenewal,
    QueueQuery,
)
from dagster_slurm_components.hosts.ssh import same_login
from dagster_slurm_components.spec.hosts import LocalHost, SshHost

FORK = multiprocessing.get_context("fork")


def through_agent(spec: SshHost) -> RemoteHost:
    return RemoteHost(AgentDialer(spec), interval=0.05, channels=1)


def work(spec: SshHost, number: int, results: object) -> None:
    """One Dagster process: 20 steps that share its host."""
    host = through_agent(spec)
    remote = Satellite(host)
    with ThreadPoolExecutor(20) as pool:
        said = list(
            pool.map(lambda step: remote.run(["echo", f"{number}.{step}"]).stdout.decode().strip(), range(20))
        )
    host.close()
    results.put(said)  # type: ignore[attr-defined]


@pytest.mark.ssh
def test_f03_four_processes_of_twenty_steps_make_one_login(sshd: Sshd, agent_folder: Path) -> None:
    results = FORK.Queue()
    processes = [FORK.Process(target=work, args=(sshd.spec(), number, results)) for number in range(4)]
    for process in processes:
        process.start()
    said = [line for _ in processes for line in results.get(timeout=PATIENCE)]
    for process in processes:
        process.join(PATIENCE)
    assert sorted(said) == sorted(f"{number}.{step}" for number in range(4) for step in range(20))
    assert sshd.logins() == 1
    about = client.status()
    assert about is not None
    assert about["hosts"][0]["calls"] == 80
    assert about["hosts"][0]["connected"]


def ask_pid(results: object) -> None:
    pipe = client.connected()
    results.put(client.ask(pipe, "status")["pid"])  # type: ignore[attr-defined]
    pipe.close()


def test_twenty_processes_start_exactly_one(agent_folder: Path) -> None:
    results = FORK.Queue()
    processes = [FORK.Process(target=ask_pid, args=(results,)) for _ in range(20)]
    for process in processes:
        process.start()
    pids = {results.get(timeout=PATIENCE) for _ in processes}
    for process in processes:
        process.join(PATIENCE)
    assert len(pids) == 1
    assert not Agent(agent_folder).serve(), "a second one ends at once"


def test_only_this_user_can_talk_to_it(agent_folder: Path) -> None:
    client.connected().close()
    assert stat.S_IMODE((agent_folder / "socket").stat().st_mode) == 0o600
    assert stat.S_IMODE(agent_folder.stat().st_mode) == 0o700
    agent_folder.chmod(0o755)
    with pytest.raises(HostRefusedError, match="closed to others"):
        client.connected()
    agent_folder.chmod(0o700)


def test_an_agent_without_a_file_or_thread_for_a_client_lives_on(
    agent_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, start, failures = (
        socket.socket.accept,
        threading.Thread.start,
        [OSError(24, "Too many open files")],
    )

    def none_left(itself: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return accept(itself)

    def no_thread(itself: threading.Thread) -> None:
        if refused and "_client" in str(itself):
            refused.pop()
            raise RuntimeError("can't start new thread")
        start(itself)

    refused = [True]
    agent = Agent(agent_folder, idle=60.0)
    monkeypatch.setattr("dagster_slurm_components.hosts.agent.server._LOOK", 0.1)
    monkeypatch.setattr(socket.socket, "accept", none_left)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    ended: list[bool] = []
    serving = threading.Thread(target=lambda: ended.append(agent.serve()))
    serving.start()
    answers = []
    deadline = time.monotonic() + PATIENCE
    while not any(answers) and time.monotonic() < deadline:
        answers.append(client.status())
    assert answers[-1] is not None
    assert not failures
    assert not refused
    client.stop()
    serving.join(PATIENCE)
    assert ended == [True]


def test_a_folder_too_long_for_a_socket_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.SWITCH, "on")
    monkeypatch.setenv(place.FOLDER, str(tmp_path / ("long" * 30)))
    with pytest.raises(HostRefusedError, match=f"too long for a socket(.|\n)*{place.FOLDER}"):
        client.connected()


@pytest.mark.ssh
def test_logins_ask_the_ssh_agent_of_who_is_there_now(
    sshd: Sshd, agent_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    client.connected().close()
    address = agent_folder / "keys"
    keys = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        deadline = time.monotonic() + PATIENCE
        while not address.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        subprocess.run(["ssh-add", "-q", str(sshd.client_key)], check=True, capture_output=True)
        host = through_agent(sshd.spec(key_file=None))
        assert Satellite(host).hello().user
        host.close()
    finally:
        keys.kill()
        keys.wait()


@pytest.mark.ssh
def test_a_client_that_is_killed_leaves_the_others_their_connection(sshd: Sshd, agent_folder: Path) -> None:
    spec = sshd.spec()
    ready = FORK.Event()

    def hang() -> None:
        remote = Satellite(through_agent(spec))
        remote.hello()
        ready.set()
        remote.run(["sleep", "300"], timeout=400)

    victim = FORK.Process(target=hang)
    victim.start()
    assert ready.wait(PATIENCE)
    other = through_agent(spec)
    Satellite(other).hello()
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(PATIENCE)
    assert Satellite(other).run(["echo", "still"]).stdout == b"still\n"
    assert sshd.logins() == 1
    other.close()


@pytest.mark.ssh
def test_a_killed_agent_is_replaced_and_the_calls_go_on(sshd: Sshd, agent_folder: Path) -> None:
    host = through_agent(sshd.spec())
    remote = Satellite(host)
    remote.hello()
    about = client.status()
    assert about is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(remote.run, ["sh", "-c", f": >'{agent_folder}/begun'; exec sleep 300"])
        eventually((agent_folder / "begun").exists, "the call is under way")
        os.kill(about["pid"], signal.SIGKILL)
        with pytest.raises(HostUnreachableError):
            waiting.result(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert remote.run(["echo", "again"]).stdout == b"again\n"
            break
        except HostUnreachableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    after = client.status()
    assert after is not None
    assert after["pid"] != about["pid"]
    assert sshd.logins() == 2
    host.close()


@pytest.mark.ssh
def test_errors_keep_their_meaning_through_the_agent(sshd: Sshd, agent_folder: Path) -> None:
    host = through_agent(sshd.spec())
    with pytest.raises(SatelliteError) as caught:
        Satellite(host).disk("/no/such/folder")
    assert caught.value.code == "missing" or "No such file" in caught.value.message
    nobody = agent_folder / "known_hosts"
    nobody.touch()
    with pytest.raises(HostRefusedError, match="is not known") as refused:
        through_agent(sshd.spec(known_hosts_file=str(nobody))).call("ping", {})
    assert "ssh-keyscan" in str(refused.value.hint)
    with pytest.raises(HostUnreachableError, match="can't connect"):
        through_agent(sshd.spec(port=1)).call("ping", {})
    host.close()


@pytest.mark.ssh
def test_f01_a_cut_connection_is_redialed_once_for_all(sshd: Sshd, agent_folder: Path) -> None:
    spec = sshd.spec(reconnect_interval=0.3)
    hosts = [through_agent(spec) for _ in range(8)]
    for host in hosts:
        host.call("ping", {})
    sshd.cut()

    def back(host: RemoteHost) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                host.call("ping", {})
                return
            except HostUnreachableError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(back, hosts))
    assert sshd.logins() == 2
    for host in hosts:
        host.close()


@pytest.mark.ssh
def test_a_client_with_many_slow_calls_leaves_the_others_their_turn(
    sshd: Sshd, agent_folder: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    busy, other = through_agent(sshd.spec()), through_agent(sshd.spec())
    waits = ["sh", "-c", 'until [ -e "$0" ]; do sleep 0.1; done', str(gate)]
    with ThreadPoolExecutor(100) as pool:
        slow = [pool.submit(Satellite(busy).run, waits, timeout=PATIENCE) for _ in range(100)]
        try:
            # More calls than the satellite does at once are under way, and none of them ends yet.
            for number in range(5):
                done = Satellite(other).run(["echo", str(number)], timeout=PATIENCE)
                assert done.stdout == f"{number}\n".encode()
            assert not any(call.done() for call in slow)
        finally:
            gate.touch()
        assert {call.result().returncode for call in slow} == {0}
    busy.close()
    other.close()


@pytest.mark.ssh
def test_status_shows_hosts_sessions_jobs_contact_and_queries(
    sshd: Sshd, agent_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sshd.spec()
    host = through_agent(spec)
    remote = Satellite(host)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "leo.yaml").write_text(
        f"host: {{type: ssh, hostname: {spec.hostname}, port: {spec.port}, user: {spec.user}}}\nworkdir: /w\n"
    )
    monkeypatch.chdir(tmp_path)
    began = time.time()
    remote.read(
        [FileRead(f"{tmp_path}/{number}/status") for number in range(9)]
    )  # `jobs list` looks at ended ones
    for number in range(4):
        (tmp_path / str(number)).mkdir()
    remote.follow([], [LeaseRenewal(f"{tmp_path}/{number}", 1) for number in range(4)], total=1)
    remote.change_lease(f"{tmp_path}/3", str(tmp_path), 1, state="ended")
    budget = Budget(f"{tmp_path}/budget.json", 2, 10)
    for _ in range(3):  # two of them are answered from the first one's answer
        remote.snapshot(QueueQuery(f"{tmp_path}/squeue.json", ["echo", "row"], max_age=60, budget=budget))
    accounting = AccountingQuery(f"{tmp_path}/sacct.json", ["echo", "sacct"], [("7", 5.0)], 1, budget=budget)
    for _ in range(2):
        remote.accounting(accounting)
    said = CliRunner().invoke(main, ["status", "--json"])
    shown = json.loads(said.output)
    assert (shown["running"], shown["clients"], shown["version"]) == (True, 1, place.version())
    (found,) = shown["hosts"]
    assert found["host"] == host.name
    assert (found["connected"], found["jobs"], found["calls"], found["queries"]) == (True, 3, 8, 2)
    assert began - 1 <= datetime.fromisoformat(found["last_contact"]).timestamp() <= time.time() + 1
    for_people = CliRunner().invoke(main, ["status"]).output
    assert "1 clients" in for_people
    assert f"{host.name}\tleo\tconnected\t3\t{time.strftime('%Y-')}" in for_people
    host.close()
    gone = through_agent(sshd.spec(port=1, reconnect_interval=1))
    with pytest.raises(HostUnreachableError):
        gone.call("ping", {})
    tried = CliRunner().invoke(main, ["status"]).output
    assert "can't connect" in tried
    assert "steps wait" not in tried
    assert all(line.count("\t") in (0, 6) for line in tried.splitlines()), "no cell has a line break"
    note_waiting(agent_folder, gone.name, "leo")
    waits = CliRunner().invoke(main, ["status"]).output
    assert f"steps wait for {gone.name} since {time.strftime('%Y-')}" in waits
    gone.close()


def serving(folder: Path, idle: float) -> threading.Thread:
    thread = threading.Thread(target=Agent(folder, idle=idle).serve, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not (folder / "socket").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return thread


def test_it_ends_when_nobody_uses_it(agent_folder: Path) -> None:
    thread = serving(agent_folder, idle=0.5)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not (agent_folder / "socket").exists()
    assert client.status() is None


def test_another_version_is_told_and_an_unused_agent_makes_room(agent_folder: Path) -> None:
    thread = serving(agent_folder, idle=60)
    spec = SshHost(hostname="h.invalid")
    user = client.connected()
    client.ask(user, "host", host=client.described(spec))

    def said_to_another_version() -> dict[str, object]:
        pipe = client.connected()
        pipe.say({"want": "host", "version": "another", "host": client.described(spec)})
        said = pipe.hear()
        pipe.close()
        return said

    refused = said_to_another_version()
    assert refused["code"] == "agent:refused"
    assert "dg-slurm agent stop" in str(refused["hint"])
    user.close()
    deadline = time.monotonic() + PATIENCE
    while (said := said_to_another_version())["code"] == "agent:refused":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert said["code"] == "agent:unreachable"
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.ssh
def test_a_stale_socket_is_taken_over(sshd: Sshd, agent_folder: Path) -> None:
    """F04: a socket left behind by a killed agent."""
    client.connected().close()
    about = client.status()
    assert about is not None
    os.kill(about["pid"], signal.SIGKILL)
    eventually(lambda: client.status() is None, "it is gone")
    assert (agent_folder / "socket").exists()
    host = through_agent(sshd.spec())
    assert Satellite(host).hello().user
    host.close()


def test_who_goes_without(agent_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SshHost(hostname="h.invalid", user="a")
    assert isinstance(connect(LocalHost()), InProcessHost)
    assert isinstance(connect(spec)._dialer, AgentDialer)  # type: ignore[attr-defined]
    assert not isinstance(
        connect(SshHost(hostname="h.invalid", user="b", agent=False))._dialer,  # type: ignore[attr-defined]
        AgentDialer,
    )
    monkeypatch.setenv(place.SWITCH, "off")
    direct = connect(SshHost(hostname="h.invalid", user="c"))
    assert not isinstance(direct._dialer, AgentDialer)  # type: ignore[attr-defined]
    monkeypatch.setenv(place.SWITCH, "maybe")
    with pytest.raises(HostRefusedError, match="'on' or 'off'"):
        connect(SshHost(hostname="h.invalid", user="d"))
    assert client.status() is None, "nothing was started"


def test_the_host_travels_with_what_it_leaves_open() -> None:
    assert json.loads(client.described(SshHost(hostname="cluster"))) == {"hostname": "cluster"}


def test_one_login_has_one_connection_however_it_is_spelt(own_home: Path) -> None:
    config = own_home / ".ssh" / "config"
    config.parent.mkdir(exist_ok=True)
    config.write_text("Host hpc\n  HostName login.example.org\n  Port 2222\n  User ada\n")

    def of(**values: object) -> str:
        return same_login(SshHost.model_validate({"type": "ssh", **values}))

    spelt = {
        of(hostname="hpc"),
        of(hostname="hpc", keepalive=30, login=["key"], connect_timeout=60),
        of(hostname="login.example.org", port=2222, user="ada"),
    }
    assert len(spelt) == 1
    others = {
        of(hostname="hpc", user="bob"),
        of(hostname="hpc", port=22),
        of(hostname="hpc", login=["key", "otp"]),
        of(hostname="hpc", key_file="~/.ssh/other"),
        of(hostname="hpc", jump=["bastion"]),
    }
    assert len(others - spelt) == 5
