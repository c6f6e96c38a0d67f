"""A private cluster for real: built, used, broken, repaired, taken down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster_fixture import shared_cluster, start_or_skip, sweep
from waiting import PATIENCE

import slurm_testcluster as slurm
from slurm_testcluster import control, daemons, process
from slurm_testcluster.daemons import members
from slurm_testcluster.isolation import Isolation

# One worker builds this cluster once; the order within the file does not matter.
pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("private cluster")]

_IMPORTS = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def lab_folder() -> Iterator[Path]:
    """A folder for one more cluster, taken down whatever happens."""
    with tempfile.TemporaryDirectory(prefix="dg-slurm-") as parent:
        folder = Path(parent).resolve() / "lab"
        yield folder
        slurm.down(folder)


def ssh(cluster: slurm.Cluster, *command: str) -> subprocess.CompletedProcess[str]:
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={cluster.known_hosts_file}"]
    options += ["GlobalKnownHostsFile=/dev/null", "IdentitiesOnly=yes"]
    argv = ["ssh", "-F", "none", *(word for option in options for word in ("-o", option))]
    argv += ["-i", str(cluster.key_file), "-p", str(cluster.ssh_port), f"{cluster.user}@127.0.0.1", *command]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
    )


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come to pass in time"
        time.sleep(0.05)


def program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, or after
        return ""


def accounted(cluster: slurm.Cluster, job: str, fields: str = "State") -> str:
    return cluster.run(["sacct", "-n", "-X", "-P", "-j", job, "-o", fields]).stdout.strip()


@pytest.mark.smoke
def test_job_by_ssh_with_strict_host_key_is_accounted(lab: slurm.Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "echo hello from $SLURM_JOB_ID; srun -n 2 -N 2 hostname"
    done = ssh(lab, f"sbatch --parsable --wait -N 2 -o {out} --wrap '{script}'")
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    lines = out.read_text().splitlines()
    assert lines[0] == f"hello from {job}"
    if lab.isolated:
        assert sorted(lines[1:]) == ["node1", "node2"]
    # The row may be COMPLETED while QOS and partition are not filled in yet (Slurm 22.05).
    wanted = f"COMPLETED|lab|normal|debug|2|{lab.user}"
    wait_for(lambda: accounted(lab, job, "State,Account,QOS,Partition,NNodes,User") == wanted)


def test_host_key_of_another_server_is_refused(lab: slurm.Cluster, tmp_path: Path) -> None:
    wrong = tmp_path / "known_hosts"
    own_key = lab.key_file.with_suffix(".pub").read_text().split()[1]
    wrong.write_text(f"[127.0.0.1]:{lab.ssh_port} ssh-ed25519 {own_key}\n")
    options = [
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={wrong}",
        "-o",
        "GlobalKnownHostsFile=/dev/null",
    ]
    argv = ["ssh", "-F", "none", *options, "-o", "StrictHostKeyChecking=yes", "-i", str(lab.key_file)]
    argv += ["-p", str(lab.ssh_port), f"{lab.user}@127.0.0.1", "true"]
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert refused.returncode == 255
    assert "verification failed" in refused.stderr


def test_names_resolve_inside_jobs(lab: slurm.Cluster) -> None:
    if not lab.isolated:
        pytest.skip("this machine permits no namespaces: node names don't resolve inside jobs")
    seen = lab.run(
        ["srun", "-w", "node3", "getent", "hosts", "node1", "node2-net"], timeout=PATIENCE
    ).stdout.split()
    assert seen[:2] == ["127.0.0.1", "localhost"]
    assert seen[-2:] == ["127.0.10.2", "node2-net"]


def test_nodes_and_partitions(lab: slurm.Cluster) -> None:
    seen = slurm.status(lab.folder)
    assert seen.state == "up"
    assert {node.name: node.gres for node in seen.nodes} == {
        "node1": "(null)",
        "node2": "(null)",
        "node3": "gpu:a100:4",
        "node4": "gpu:a100:4",
    }
    names = {partition.name: partition.state for partition in seen.partitions}
    assert names == {
        **dict.fromkeys(["debug", "gpu", "preempt", "spot", "high", "closed"], "up"),
        "down": "down",
    }


@pytest.mark.smoke
def test_gpus_are_given_out(lab: slurm.Cluster) -> None:
    out = lab.run(
        ["srun", "-p", "gpu", "--gpus=2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"], timeout=PATIENCE
    ).stdout
    assert out == "0,1\n"


def test_limited_qos_limits(lab: slurm.Cluster) -> None:
    submit = ["sbatch", "--parsable", "--hold", "-o", "/dev/null", "--qos=limited", "--wrap", "true"]
    jobs = [lab.run(submit).stdout.strip() for _ in range(2)]
    refused = lab.run(submit, check=False)
    lab.run(["scancel", *jobs])
    assert refused.returncode != 0
    assert "QOSMaxSubmitJobPerUserLimit" in refused.stderr


def test_everything_listens_on_loopback_only(lab: slurm.Cluster) -> None:
    ports = {f"{port:04X}" for port in lab.ports.used}
    listening = [
        line.split()[1].split(":")
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    mine = [(address, port) for address, port in listening if port in ports]
    assert {port for _, port in mine} == ports
    assert all(address.endswith("7F") for address, _ in mine)


def test_second_up_changes_nothing_and_is_quick(lab: slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    before = slurm.status(lab.folder).daemons
    files = {file: file.stat().st_mtime_ns for file in lab.etc.iterdir()}
    monkeypatch.setattr(control, "_start_all", None)
    monkeypatch.setattr(control, "prepare", None)
    seconds = []
    for _ in range(5):
        began = sum(
            os.times()[:4]
        )  # of this process and its children: other work on the machine doesn't count
        assert slurm.up(lab.folder) == lab
        seconds.append(sum(os.times()[:4]) - began)
    assert min(seconds) < 0.5
    assert slurm.status(lab.folder).daemons == before
    assert {file: file.stat().st_mtime_ns for file in lab.etc.iterdir()} == files


@pytest.mark.parametrize("name", ["munged", "slurmdbd", "slurmctld", "slurmd-node2", "sshd", "mariadbd"])
def test_up_repairs_a_killed_daemon_alone(lab: slurm.Cluster, name: str) -> None:
    before = {daemon.name: daemon.pid for daemon in slurm.status(lab.folder).daemons}
    lab.stop_daemon(name, number=signal.SIGKILL)
    broken = slurm.status(lab.folder)
    assert broken.state == "partly"
    assert [daemon.name for daemon in broken.daemons if daemon.state == "down"] == [name]
    assert slurm.up(lab.folder) == lab
    after = {daemon.name: daemon.pid for daemon in slurm.status(lab.folder).daemons}
    assert {name for name in after if after[name] != before[name]} == {name}
    assert slurm.status(lab.folder).state == "up"
    assert lab.run(["srun", "echo", "works"], timeout=PATIENCE).stdout == "works\n"


def test_daemon_stops_and_starts_by_name(lab: slurm.Cluster) -> None:
    lab.stop_daemon("slurmdbd")
    assert daemons.running(daemons.by_name(lab, "slurmdbd"), lab) is None
    lab.start_daemon("slurmdbd")
    pid = daemons.running(daemons.by_name(lab, "slurmdbd"), lab)
    lab.start_daemon("slurmdbd")
    assert daemons.running(daemons.by_name(lab, "slurmdbd"), lab) == pid
    with pytest.raises(slurm.ClusterError, match="no daemon 'slurmdb'"):
        daemons.by_name(lab, "slurmdb")


def test_pid_file_of_before_a_reboot_is_not_believed(lab: slurm.Cluster) -> None:
    """The pid runs, as someone else: the daemon counts as down, and its pid gets no signal."""
    file = lab.pid_file("sshd")
    lab.stop_daemon("sshd")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        identity = process.identify(stranger.pid)
        assert identity is not None
        file.write_text(f"{stranger.pid} {identity.start_time} 00000000-0000-0000-0000-000000000000\n")
        assert slurm.status(lab.folder).state == "partly"
        slurm.up(lab.folder)
        assert identity.is_alive()
        process.stop([identity])
    assert ssh(lab, "true").returncode == 0


def check_down_leaves_nothing(cluster: slurm.Cluster) -> None:
    """Leave a job whose process left its session, one deaf to SIGTERM, and a login; then take it down."""
    escaped = "setsid sleep 1000 & echo $! >/dev/null; sleep 1000"
    for script in (escaped, "trap '' TERM; sleep 1000"):
        cluster.run(["sbatch", "-o", "/dev/null", "--wrap", script])
    argv = ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={cluster.known_hosts_file}"]
    argv += ["-i", str(cluster.key_file), "-p", str(cluster.ssh_port), f"{cluster.user}@127.0.0.1"]
    login = subprocess.Popen([*argv, "sleep 1000"], stdin=subprocess.DEVNULL)
    wait_for(lambda: [program(one.pid) for one in members(cluster)].count("sleep") == 4)
    mine = members(cluster)
    slurm.down(cluster.folder)
    login.wait(timeout=PATIENCE)
    assert not any(one.is_alive() for one in mine)
    assert not cluster.folder.exists()
    assert not any(daemons.accepts(("127.0.0.1", port)) for port in cluster.ports.used)
    assert str(cluster.folder) not in Path("/proc/self/mountinfo").read_text()


def test_two_callers_build_one_cluster_beside_another_and_down_leaves_nothing(
    lab: slurm.Cluster, lab_folder: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(slurm.up, [lab_folder, lab_folder]))
    assert both[0] == both[1]
    assert not set(both[0].ports.used) & set(lab.ports.used)
    check_down_leaves_nothing(both[0])
    assert slurm.status(lab.folder).state == "up"


def test_machine_without_namespaces_has_a_working_cluster_and_down_leaves_nothing(
    lab_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "detect", lambda: Isolation.NONE)
    cluster = start_or_skip(lab_folder)
    assert cluster.run(["srun", "-N", "4", "echo", "works"], timeout=PATIENCE).stdout == "works\n" * 4
    check_down_leaves_nothing(cluster)


def test_kept_folder_comes_back_with_ports_keys_and_accounting(lab_folder: Path) -> None:
    first = start_or_skip(lab_folder)
    job = first.run(["sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 1000"]).stdout.strip()
    wait_for(lambda: bool(slurm.status(lab_folder).jobs.get("RUNNING")))
    key = first.key_file.read_bytes()
    slurm.down(lab_folder, keep=True)
    assert members(first) == []
    assert slurm.status(lab_folder).state == "down"
    second = slurm.up(lab_folder)
    assert second == first
    assert second.key_file.read_bytes() == key
    wait_for(lambda: accounted(second, job).startswith("CANCELLED"))


def test_shared_cluster_lives_until_the_last_user_leaves_even_if_one_crashed(lab_folder: Path) -> None:
    root = lab_folder.parent / "dg-slurm-test-shared"
    crash = "import sys, os, cluster_fixture as c; from pathlib import Path; c._join(Path(sys.argv[1])); os._exit(1)"
    with shared_cluster(root) as first:
        subprocess.run(
            [sys.executable, "-c", crash, str(root)], cwd=Path(__file__).parents[1], env=_IMPORTS, check=False
        )
        assert len(list((root / "users").iterdir())) == 2
        with shared_cluster(root) as second:
            assert second == first
        assert slurm.status(first.folder).state == "up"
        sweep(root.parent)
        assert slurm.status(first.folder).state == "up"
    assert not root.exists()


def test_what_a_killed_test_run_left_is_swept(lab_folder: Path) -> None:
    root = lab_folder.parent / "dg-slurm-test-killed"
    (root / "users").mkdir(parents=True)
    (root / "users" / "gone").touch()
    sweep(root.parent)
    assert not root.exists()


def test_command_line(lab: slurm.Cluster) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "dagster_slurm_components.cli.main", "cluster", *words]
        environment = {**os.environ, "DAGSTER_SLURM_CLUSTER": str(lab.folder)}
        return subprocess.run(
            argv, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2], check=False
        )

    plain = run("up")
    assert plain.returncode == 0, plain.stderr
    assert f"{lab.folder}: was up already" in plain.stdout
    assert str(lab.profile_file) in plain.stdout
    assert len(plain.stdout.splitlines()) < 6
    assert f"export SLURM_CONF={lab.slurm_conf}" in plain.stdout
    data = json.loads(run("up", "--json").stdout)
    assert data["profile"] == lab.profile
    assert data["ssh_port"] == lab.ssh_port
    assert subprocess.run([*data["login"], "true"], check=False).returncode == 0
    assert run("status").returncode == 0
    lab.stop_daemon("munged")
    assert run("status", "--json").returncode == 4
    lab.start_daemon("munged")
