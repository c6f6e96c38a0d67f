"""What a network, a login node and a login shell do, in front of a real sshd."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from satellite_fixture import bundle
from sshd_fixture import Sshd, make_key
from waiting import PATIENCE, eventually

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts import channel
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer

pytestmark = pytest.mark.ssh


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[FaultProxy]:
    made = FaultProxy(sshd.port)
    key = sshd.host_key.with_suffix(".pub").read_text()
    sshd.known_hosts.write_text(f"[127.0.0.1]:{made.port} {key}")
    yield made
    made.close()


def reach(sshd: Sshd, proxy: FaultProxy, *, interval: float = 0.2) -> RemoteHost:
    return RemoteHost(SshDialer(sshd.spec(port=proxy.port), pauses=()), interval=interval)


def patiently(remote: Satellite) -> bytes:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return remote.run(["echo", "here"]).stdout
        except HostUnreachableError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_f01_a_reset_in_the_middle_of_a_call_is_told_and_the_next_call_redials(
    sshd: Sshd, proxy: FaultProxy, tmp_path: Path
) -> None:
    host = reach(sshd, proxy)
    remote = Satellite(host)
    remote.hello()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(remote.run, ["sh", "-c", f": >'{tmp_path}/begun'; exec sleep 300"])
        eventually((tmp_path / "begun").exists, "the call is under way")
        proxy.cut()
        with pytest.raises(HostUnreachableError, match="lost"):
            waiting.result(PATIENCE)
    assert patiently(remote) == b"here\n"
    host.close()


def test_f02_a_host_that_refuses_is_asked_ever_less_often(sshd: Sshd, proxy: FaultProxy) -> None:
    clock = [1000.0]
    proxy.refuse = True
    host = RemoteHost(
        SshDialer(sshd.spec(port=proxy.port), pauses=()), clock=lambda: clock[0], jitter=lambda: 0.0
    )
    for _ in range(1800):  # half an hour, asked every second
        with pytest.raises(HostUnreachableError):
            host.call("ping", {})
        clock[0] += 1
    assert proxy.accepted <= 1800 / 60 + 3
    proxy.refuse = False
    clock[0] += 61
    assert Satellite(host).hello().user
    host.close()


def test_f03_attempts_to_connect_are_15_seconds_apart(sshd: Sshd, proxy: FaultProxy) -> None:
    clock = [1000.0]
    host = RemoteHost(
        SshDialer(sshd.spec(port=proxy.port), pauses=()), clock=lambda: clock[0], jitter=lambda: 0.0
    )
    host.call("ping", {})
    attempts = []
    for _ in range(40):
        proxy.cut()
        before = proxy.accepted
        eventually(lambda: not host.connected, "the cut is noticed", pause=0.01)
        with contextlib.suppress(HostUnreachableError):
            host.call("ping", {})
        attempts += [clock[0]] * (proxy.accepted - before)
        clock[0] += 1
    assert attempts == [1015.0, 1030.0]
    host.close()


def test_f04_a_half_open_connection_is_found_out(
    sshd: Sshd, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_PROBE", 0.3)
    host = reach(sshd, proxy)
    remote = Satellite(host)
    remote.hello()
    proxy.stalled = True
    with pytest.raises(HostUnreachableError, match="no answer"):
        host.call("read", {"files": []}, timeout=0.3)
    assert not host.connected, "TCP alone would have noticed after minutes"
    proxy.stalled = False
    assert patiently(remote) == b"here\n"
    host.close()


def test_a_slow_line_is_no_fault(sshd: Sshd, proxy: FaultProxy) -> None:
    host = reach(sshd, proxy)
    proxy.delay = 0.05
    assert Satellite(host).run(["cat"], input=b"x" * 300_000).stdout == b"x" * 300_000
    host.close()


def test_f06_a_changed_host_key_stops_everything(sshd: Sshd, proxy: FaultProxy, tmp_path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    sshd.known_hosts.write_text(f"[127.0.0.1]:{proxy.port} {other}")
    with pytest.raises(HostRefusedError, match="HAS CHANGED"):
        reach(sshd, proxy).call("ping", {})
    assert sshd.logins() == 0


def test_f07_banners_noise_of_the_shell_and_its_exit_codes_do_no_harm(sshd_factory, tmp_path) -> None:
    banner = tmp_path / "banner"
    banner.write_text("*** maintenance on friday ***\n" * 100)
    noise = (
        'ForceCommand echo "module: loaded"; echo complaint >&2; false; sh -c "$SSH_ORIGINAL_COMMAND"; exit 3'
    )
    server = sshd_factory(f"Banner {banner}", noise)
    host = RemoteHost(SshDialer(server.spec()))
    assert Satellite(host).run(["echo", "clean"]).stdout == b"clean\n"
    host.close()


@pytest.mark.parametrize("shell", ["tcsh", "csh", "fish", "zsh", "dash"])
def test_f07b_any_login_shell(sshd_factory, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    server = sshd_factory(f'ForceCommand {program} -c "$SSH_ORIGINAL_COMMAND"')
    host = RemoteHost(SshDialer(server.spec()))
    assert Satellite(host).run(["echo", "it's", "$HOME"]).stdout == b"it's $HOME\n"
    host.close()


def test_f41_two_processes_that_submit_the_same_step_make_one_job(sshd: Sshd, slurm, workdir) -> None:
    slurm.script("sbatch", "sleep 0.2; echo $$ >>jobs; echo $$")
    hosts = [RemoteHost(SshDialer(sshd.spec())) for _ in range(2)]
    barrier = threading.Barrier(2)

    def submit(host: RemoteHost) -> str | None:
        barrier.wait()
        return Satellite(host).submit(slurm.request(workdir), bundle({"job.sh": "x"})).job_id

    for host in hosts:
        host.call("ping", {})
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(submit, hosts))
    for host in hosts:
        host.close()
    assert ids == slurm.jobs() * 2
