"""Command lines of the daemons, and how one is started, found and told from a stranger."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slurm_testcluster import daemons, process
from slurm_testcluster.daemons import Daemon, members
from slurm_testcluster.errors import ClusterError
from slurm_testcluster.isolation import Isolation, isolated_argv
from slurm_testcluster.layout import Layout, Ports

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path, "ada", tmp_path, Ports(17000), Isolation.NONE, "laptop")
    for folder in (made.pids, made.log, made.etc):
        folder.mkdir()
    return made


def listener(layout: Layout) -> Daemon:
    code = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
        "print('listening', flush=True); time.sleep(600)"
    )
    return Daemon("listener", (sys.executable, "-c", code, str(layout.pids / "sock")), layout.pids / "sock")


def test_waves_name_each_daemon_once_and_all_listen_on_different_places() -> None:
    layout = Layout(Path("/lab"), "ada", Path("/home/ada"), Ports(17000), Isolation.ROOT, "laptop")
    assert [daemon.name for daemon in daemons.all_daemons(layout)] == [
        *("munged", "mariadbd", "sshd", "slurmdbd", "slurmctld"),
        *("slurmd-node1", "slurmd-node2", "slurmd-node3", "slurmd-node4"),
    ]
    without = {daemon.name for daemon in daemons.all_daemons(replace(layout, accounting=False))}
    assert {daemon.name for daemon in daemons.all_daemons(layout)} - without == {"mariadbd", "slurmdbd"}
    ready = [daemon.ready for daemon in daemons.all_daemons(layout)]
    assert len(set(ready)) == len(ready)


def test_isolation_wraps_the_program_and_keeps_it_last() -> None:
    argv = ["slurmd", "-N", "node1"]
    assert isolated_argv(Isolation.NONE, "node1", Path("/hosts"), argv) == argv
    for isolation in (Isolation.ROOT, Isolation.USER, Isolation.SUDO):
        wrapped = isolated_argv(isolation, "node1", Path("/hosts"), argv)
        assert wrapped[-3:] == argv
        assert {"unshare", "node1", "/hosts"} <= set(wrapped)
    assert isolated_argv(Isolation.SUDO, "n", Path("/h"), argv)[:2] == ["sudo", "-n"]


def test_marks_come_last_in_a_daemons_environment(layout: Layout) -> None:
    argv = daemons.launch_argv(listener(layout), layout)
    end = argv.index(sys.executable)
    assert argv[end - 2 : end] == [f"SLURM_CONF={layout.slurm_conf}", f"{daemons.DAEMON_MARK}=listener"]


def test_a_daemon_starts_is_found_and_stops(layout: Layout) -> None:
    daemon = listener(layout)
    daemons.start([daemon], layout)
    identity = daemons.running(daemon, layout)
    assert identity is not None
    assert process.environment(identity.pid) >= {f"SLURM_CONF={layout.slurm_conf}".encode()}
    assert layout.log_file("listener").read_text() == "listening\n"
    process.stop([identity])
    assert daemons.running(daemon, layout) is None


def test_a_daemon_that_ends_at_once_shows_its_log(layout: Layout) -> None:
    daemon = Daemon("broken", (sys.executable, "-c", "raise SystemExit('no such key')"), layout.pids / "none")
    with pytest.raises(ClusterError, match="broken ended at once; the end of its log:\nno such key"):
        daemons.start([daemon], layout)


def test_a_daemon_that_is_never_ready_is_an_error(layout: Layout) -> None:
    daemon = Daemon("deaf", tuple(SLEEP), layout.pids / "none")
    with pytest.raises(ClusterError, match="deaf was not ready in time"):
        daemons.start([daemon], layout, timeout=0.3)
    identity = daemons.running(daemon, layout)
    assert identity is not None
    process.stop([identity])


def test_accepts_tells_an_open_port_from_a_closed_one() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
        assert not daemons.accepts(address)
        server.listen()
        assert daemons.accepts(address)


@pytest.mark.parametrize("content", ["", "12", "a b c", "1 2", "1 2 3 4"])
def test_unreadable_pid_file_is_nobody(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.pid"
    file.write_text(content)
    assert process.Identity.read(file) is None
    assert process.Identity.read(tmp_path / "none") is None


def test_reused_pid_and_earlier_boot_are_someone_else() -> None:
    me = process.identify(os.getpid())
    assert me is not None
    assert me.is_alive()
    assert not replace(me, start_time=me.start_time - 1).is_alive()
    assert not replace(me, boot_id="of-another-boot").is_alive()


def test_a_stranger_with_our_pid_gets_no_signal() -> None:
    with subprocess.Popen(SLEEP) as stranger:
        identity = process.identify(stranger.pid)
        assert identity is not None
        process.send([replace(identity, start_time=identity.start_time - 1)], signal.SIGKILL)
        assert identity.is_alive()
        process.stop([identity])
        assert not identity.is_alive()


def test_what_ignores_sigterm_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        identity = process.identify(deaf.pid)
        assert identity is not None
        process.stop([identity], timeout=0.2)
        assert deaf.wait() == -signal.SIGKILL


def test_members_are_marked_processes_and_their_children_alone(layout: Layout) -> None:
    ours = {"SLURM_CONF": str(layout.slurm_conf)}
    child = [sys.executable, "-c", f"import subprocess; subprocess.run({SLEEP!r})"]
    with (
        subprocess.Popen(child, env={**ours, "SLURM_JOB_ID": "7"}) as job,
        subprocess.Popen(SLEEP, env=ours) as shell,
        subprocess.Popen(SLEEP, env={"SLURM_CONF": "/other/slurm.conf", "SLURM_JOB_ID": "7"}) as other,
    ):
        try:
            # The environment is there as soon as the program runs, which fork and exec take a moment for.
            for _ in range(500):
                found = {identity.pid for identity in members(layout)}
                if len(found) == 2:
                    break
            assert job.pid in found
            assert found == process.descendants([job.pid])
            assert not found & {shell.pid, other.pid}
        finally:
            for pid in process.descendants([job.pid, shell.pid, other.pid]):
                os.kill(pid, signal.SIGKILL)
