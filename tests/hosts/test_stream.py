"""Programs that somebody talks to: here, over ssh, and through the agent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd_fixture import Sshd
from waiting import eventually

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError, SatelliteError
from dagster_slurm_components.hosts.agent.client import AgentDialer
from dagster_slurm_components.hosts.base import Host
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.hosts.stream import Size, Stream


@pytest.fixture(
    params=["here", pytest.param("ssh", marks=pytest.mark.ssh), pytest.param("agent", marks=pytest.mark.ssh)]
)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    if request.param == "here":
        yield InProcessHost()
        return
    server: Sshd = request.getfixturevalue("sshd")
    if request.param == "agent":
        request.getfixturevalue("agent_folder")
        made = RemoteHost(AgentDialer(server.spec()), interval=0.05)
    else:
        made = RemoteHost(SshDialer(server.spec()))
    yield made
    made.close()
    assert server.logins() == 1


def all_of(stream: Stream) -> dict[str, bytes]:
    found = {"out": b"", "err": b""}
    while (piece := stream.read()) is not None:
        found[piece[0]] += piece[1]
    return found


def test_bytes_go_and_come_as_they_are(host: Host) -> None:
    data = bytes(range(256)) * 4096
    with Stream(host, ["sh", "-c", "cat; echo done >&2; exit 3"]) as stream:
        stream.write(data)
        stream.end()
        assert all_of(stream) == {"out": data, "err": b"done\n"}
        assert stream.code == 3
    assert Satellite(host).run(["echo", "still"]).stdout == b"still\n", "calls go on beside it"


def test_a_terminal_of_a_size_that_changes(host: Host) -> None:
    with Stream(
        host, ["sh", "-c", "stty size; read -r word; stty size; kill -9 $$"], size=Size(31, 97)
    ) as stream:
        assert stream.read() == ("out", b"31 97\r\n")
        stream.resize(Size(40, 120))
        stream.write(b"on\n")
        assert b"40 120\r\n" in all_of(stream)["out"]
        assert stream.code == -signal.SIGKILL


@pytest.mark.parametrize(("how", "begin"), [(Stream.close, "trap '' HUP; "), (Stream.stop, "")])
def test_a_program_ends_with_its_stream_and_what_it_started_too(
    host: Host, how: Callable[[Stream], None], begin: str
) -> None:
    with Stream(host, ["sh", "-c", f"{begin}sleep 86397 & echo $$; wait; sleep 86397"]) as stream:
        said = stream.read()
        assert said is not None
        pid = int(said[1])
        how(stream)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
    eventually(lambda: not any(map(sleeps, os.listdir("/proc"))), "what it started, too")


def sleeps(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0086397\0"
    except OSError:
        return False


def test_variables_are_no_arguments(host: Host) -> None:
    with Stream(
        host, ["sh", "-c", 'echo "$WORD"; tr "\\0" " " </proc/$$/cmdline'], env={"WORD": "$(id); 'x'"}
    ) as stream:
        first, rest = all_of(stream)["out"].split(b"\n", 1)
    assert first == b"$(id); 'x'"
    assert b"id)" not in rest


def test_what_can_not_be_started_is_told(host: Host) -> None:
    with pytest.raises(SatelliteError, match="no-such-program is neither on PATH"):
        Stream(host, ["no-such-program"])


@pytest.mark.ssh
def test_a_host_that_allows_one_session_says_so(sshd_factory: Callable[..., Sshd]) -> None:
    host = RemoteHost(SshDialer(sshd_factory("MaxSessions 1").spec(), sleep=lambda seconds: None))
    host.call("ping", {})
    with pytest.raises(HostRefusedError, match="opens no session"):
        Stream(host, ["true"])
    host.call("ping", {})
    host.close()


@pytest.mark.ssh
def test_a_lost_connection_is_told(sshd: Sshd) -> None:
    host = RemoteHost(SshDialer(sshd.spec()))
    with Stream(host, ["cat"]) as stream:
        sshd.cut()
        with pytest.raises(HostUnreachableError, match="the connection was lost"):
            stream.read()
    host.close()
