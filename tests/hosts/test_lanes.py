"""Several channels over one connection: opened while large calls are under way, shared when there can be no more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sshd_fixture import Sshd
from subprocess_dialer import SubprocessDialer
from waiting import eventually

from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts.agent.client import AgentDialer
from dagster_slurm_components.hosts.channel import Channel
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import LARGE, Lanes, RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer


@contextlib.contextmanager
def taken(lanes: Lanes, count: int) -> Iterator[list[Channel]]:
    """Hold so many lanes at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(lanes.lane()) for _ in range(count)]


def pid(channel: Channel) -> int:
    return int(channel.call("hello", {}, b"", 60.0).result["pid"])


@contextlib.contextmanager
def dialed(dialer: SshDialer, linger: float = 2.0, near: float = 0.0) -> Iterator[Lanes]:
    lanes = Lanes(dialer, Channel(dialer.dial(), dialer.name), 3, linger, near)
    yield lanes
    lanes.close()


def spread(lanes: Lanes, calls: int, channels: int) -> set[Channel]:
    """Hold lanes again and again, until so many channels are among them that answer."""

    def look() -> set[Channel] | None:
        with taken(lanes, calls) as held:
            assert held[0] is lanes.main
            found = {*held}
            return found if len(found) == channels == len({pid(channel) for channel in found}) else None

    return eventually(look, f"{channels} channels are open")


def test_large_calls_at_once_get_channels_of_their_own_on_the_one_connection(sshd: Sshd):
    with dialed(SshDialer(sshd.spec())) as lanes:
        with taken(lanes, 6) as held:
            assert {*held} == {lanes.main}, "no call waits until one is open"
        others = spread(lanes, 6, 4) - {lanes.main}
        eventually(lambda: all(each.lost for each in others), "they are closed when nobody needs them")
        again = spread(lanes, 2, 2) - {lanes.main}
        assert again.isdisjoint(others)
        assert not lanes.main.lost
    assert sshd.logins() == 1


def test_a_host_that_is_near_gets_two(sshd: Sshd):
    with dialed(SshDialer(sshd.spec()), near=5.0) as lanes:
        pid(lanes.main)
        two = spread(lanes, 6, 2)
        assert spread(lanes, 6, 2) == two


def test_channels_outlast_a_moment_without_a_call(sshd: Sshd):
    with dialed(SshDialer(sshd.spec()), linger=60.0) as lanes:
        assert spread(lanes, 2, 2) == spread(lanes, 2, 2)


def test_one_large_call_after_the_other_opens_nothing(sshd: Sshd):
    with dialed(SshDialer(sshd.spec())) as lanes:
        for _ in range(3):
            with lanes.lane() as lane:
                assert lane is lanes.main


def test_where_the_host_allows_one_session_all_goes_over_it(sshd_factory: Callable[..., Sshd]):
    dialer = SshDialer(sshd_factory("MaxSessions 1").spec())
    with dialed(dialer) as lanes, taken(lanes, 3) as held:
        assert {pid(channel) for channel in held} == {pid(lanes.main)}


def test_after_a_loss_the_new_connection_has_its_own_channels(sshd: Sshd):
    dialer = SshDialer(sshd.spec())
    with dialed(dialer) as first:
        lost = spread(first, 2, 2)
        sshd.cut()
        for channel in lost:
            with pytest.raises(HostUnreachableError):
                pid(channel)
        with dialed(dialer) as second:
            spread(second, 2, 2)
        with dialed(dialer) as third, third.lane() as lane:
            assert lane is third.main


def test_a_host_s_large_uploads_arrive_whatever_channel_they_took(tmp_path: Path):
    host = RemoteHost(SubprocessDialer())
    data = {tmp_path / f"{number}": os.urandom(LARGE + number) for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: Satellite(host).put(str(item[0]), item[1]), data.items()))
    host.close()
    assert all(path.read_bytes() == content for path, content in data.items())


def test_through_the_agent_large_uploads_share_its_one_connection(
    sshd_factory: Callable[..., Sshd], agent_folder: Path, tmp_path: Path
):
    sshd = sshd_factory("LogLevel VERBOSE")
    host = RemoteHost(AgentDialer(sshd.spec()), interval=0.05, channels=1)
    remote = Satellite(host)
    data = os.urandom(4 * LARGE)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: remote.put(f"{tmp_path}/{number}", data), range(16)))
    host.close()
    assert all((tmp_path / str(number)).read_bytes() == data for number in range(16))
    log = sshd.log.read_text()
    assert log.count("Accepted publickey") == 1
    assert log.count("Starting session") > 1
