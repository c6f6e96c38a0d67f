"""The sampler: what it writes of real jobs, that it ends with them, and that it stays small."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest
from launchers.harness import nodes_of, prepare, submit
from sampler_fixture import HERE, module
from waiting import PATIENCE, eventually

import slurm_testcluster as slurm
from dagster_slurm_components.jobs.bundle import sampler
from dagster_slurm_components.jobs.status import parse_status
from dagster_slurm_components.jobs.usage import NodeUsage, parse_usage
from dagster_slurm_components.launchers.base import LaunchContext, payload_argv
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.launchers.testing import PAYLOAD, make_run_directory, outside_slurm
from dagster_slurm_components.spec.launchers import BashLauncher
from dagster_slurm_components.spec.resources import Resources

LAUNCHERS = HERE.parents[1] / "launchers" / "job"
MIB = 2**20
WAITS = "import time, pathlib\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)\n"
WORKS = """
import os, pathlib, time
memory = bytearray(b"1") * (300 * 2**20)
with open("out", "wb") as file:
    for _ in range(100):
        file.write(bytes(10**6))
    os.fsync(file.fileno())
begin = time.process_time()
while time.process_time() < begin + 4:
    sum(range(1000))
pathlib.Path("used.new").write_text(str(time.process_time()))
pathlib.Path("used.new").rename("used")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
"""
"""Goes on until it may end: on a busy machine the sampler might not have looked since it has its memory."""
linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system has no /proc")


@pytest.fixture(scope="module")
def counters() -> ModuleType:
    return module("counters")


@pytest.fixture(scope="module")
def sample(counters: ModuleType) -> ModuleType:
    sys.modules["counters"] = counters
    try:
        return module("sample")
    finally:
        del sys.modules["counters"]


def make(folder: Path, payload: str, *, env: Mapping[str, str] | None = None) -> Path:
    argv = payload_argv(PAYLOAD, None, ())
    made = plan(BashLauncher(), argv, LaunchContext(Resources(), "process"))
    make_run_directory(folder, made, payload, {"DAGSTER_SLURM_PYTHON": sys.executable, **(env or {})})
    for name, text in sampler().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text)
    return folder


class Start(Protocol):
    def __call__(self, folder: Path, **variables: str) -> subprocess.Popen[bytes]: ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Start jobs; what a failed test leaves of them ends with it."""
    jobs = []

    def start(folder: Path, **variables: str) -> subprocess.Popen[bytes]:
        with (folder / "stderr.log").open("ab") as err:
            job = subprocess.Popen(
                ["bash", str(folder / "job.sh"), str(folder)],
                env={**outside_slurm(), **variables},
                stdin=subprocess.DEVNULL,
                stderr=err,
                start_new_session=True,
            )
        jobs.append(job)
        return job

    yield start
    sessions = {str(job.pid) for job in jobs}
    done = subprocess.run(["ps", "-A", "-o", "pid=,sess="], capture_output=True, text=True, check=True)
    for pid, session in (line.split() for line in done.stdout.splitlines()):
        if session in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    for job in jobs:
        job.wait()


def usage(folder: Path) -> NodeUsage:
    found = parse_usage((folder / "usage" / "0.jsonl").read_bytes())
    assert found is not None
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    file = folder / "usage" / "0.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def heads(folder: Path) -> int:
    return ["node" in line for line in lines(folder)].count(True)


def seen_at_work(folder: Path) -> None:
    """Let the payload `WORKS` end, once it was seen with all its memory."""
    eventually((folder / "payload" / "used").exists, "it has worked")
    seen = len(lines(folder))
    eventually(lambda: len(lines(folder)) > seen + 1, "two more samples")
    (folder / "payload" / "go").touch()


def samplers(folder: Path) -> list[str]:
    """Return the processes that sample for a run directory."""
    done = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if f"{folder}/usage/" in line]


@linux
def test_what_a_payload_uses_is_seen(start: Start, tmp_path: Path) -> None:
    folder = make(tmp_path / "run", WORKS)
    job = start(folder)
    seen_at_work(folder)
    assert job.wait(PATIENCE) == 0
    found, last = usage(folder), usage(folder).samples[-1]
    status = parse_status((folder / "status").read_bytes())
    assert status is not None
    assert status.started == pytest.approx(found.starts[0], abs=0.01)
    assert (found.node, found.source, found.gpus) == (os.uname().nodename, "processes", ())
    assert found.cpus == len(os.sched_getaffinity(0))
    assert last.peak == pytest.approx(300 * MIB, rel=0.1)
    assert last.written == pytest.approx(100e6, rel=0.1)
    assert last.cpu == pytest.approx(float((folder / "payload" / "used").read_text()), rel=0.1)
    assert status.cpu_seconds == pytest.approx(last.cpu, rel=0.1)
    assert max(sample.memory or 0 for sample in found.samples) == last.peak
    assert (folder / "stderr.log").read_bytes() == b""
    assert samplers(folder) == []
    assert not (folder / ".sampler").exists()


@pytest.mark.slurm
def test_what_a_payload_of_slurms_uses_is_seen(cluster: slurm.Cluster, tmp_path: Path) -> None:
    resources = Resources(mem="600M", cpus_per_task=2, time="00:05:00")
    run = prepare(tmp_path / "run", BashLauncher(), WORKS, resources=resources, scheduler="slurm")
    submit(cluster, run)
    seen_at_work(run.folder)
    run.wait_ended()
    assert run.exit_code == 0, run.report()
    found, last = usage(run.folder), usage(run.folder).samples[-1]
    assert [found.node] == nodes_of(cluster, run)
    assert (found.cpus, found.memory_limit) == (2, 600 * MIB)
    assert last.peak == pytest.approx(300 * MIB, rel=0.1)
    assert last.written == pytest.approx(100e6, rel=0.1)
    assert last.cpu == pytest.approx(float((run.folder / "payload" / "used").read_text()), rel=0.1)
    assert run.stderr == ""


@linux
def test_forked_processes_are_not_counted_several_times(start: Start, tmp_path: Path) -> None:
    payload = 'import os\nmemory = bytearray(b"1") * (100 * 2**20)\n'
    payload += "if all([os.fork(), os.fork()]):\n    open('forked', 'w').close()\n" + WAITS
    folder = make(tmp_path / "run", payload)
    job = start(folder)
    eventually((folder / "payload" / "forked").exists, "it has forked")
    seen = len(lines(folder))
    eventually(lambda: len(lines(folder)) > seen + 1, "two more samples")
    (folder / "payload" / "go").touch()
    assert job.wait(PATIENCE) == 0
    assert usage(folder).samples[-1].peak == pytest.approx(100 * MIB, rel=0.2)


@linux
def test_what_ended_processes_used_stays(start: Start, tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 1.5: sum(range(1000))\n"
    ends = "open('burnt', 'w')\nimport os\nwhile not os.path.exists('seen'): time.sleep(0.05)\nopen('done', 'w')\n"
    # One that is waited for, and one that has detached itself and is not.
    payload = f"import os, subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
    payload += "if os.fork() == 0:\n    if os.fork() == 0:\n        os.setsid()\n"
    payload += f"        os.execv(sys.executable, ['python', '-c', {burn + ends!r}])\n"
    payload += "    os._exit(0)\n" + WAITS
    folder = make(tmp_path / "run", payload)
    job = start(folder)
    # What the detached one used after the last look at it is lost.
    for mark, then in (("burnt", "seen"), ("done", "go")):
        eventually((folder / "payload" / mark).exists, f"the detached process has {mark}")
        seen = len(lines(folder))
        eventually(lambda: len(lines(folder)) > seen + 1, "two more samples")  # noqa: B023
        (folder / "payload" / then).touch()
    assert job.wait(PATIENCE) == 0
    used = [sample.cpu or 0 for sample in usage(folder).samples]
    assert used == sorted(used)
    assert used[-1] > 2.9


def test_a_short_job_is_not_sampled(start: Start, tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "")
    assert start(folder).wait(PATIENCE) == 0
    assert samplers(folder) == []
    assert (folder / "stderr.log").read_bytes() == b""


def test_it_dies_with_the_job(start: Start, tmp_path: Path) -> None:
    folder = make(tmp_path / "run", WAITS)
    job = start(folder)
    eventually(lambda: len(lines(folder)) > 1, "the first sample")
    assert samplers(folder)
    os.kill(job.pid, signal.SIGKILL)
    eventually(lambda: not samplers(folder), "the sampler is gone")


def test_signals_are_the_payloads(start: Start, tmp_path: Path) -> None:
    payload = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n" + WAITS
    folder = make(tmp_path / "run", payload)
    job = start(folder)
    eventually(lambda: len(lines(folder)) > 1, "the first sample")
    (sampling,) = samplers(folder)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(int(sampling.split()[0]), number)
    seen = len(lines(folder))
    eventually(lambda: len(lines(folder)) > seen, "one more sample")
    (folder / "payload" / "go").touch()
    assert job.wait(PATIENCE) == 0


def test_a_sampler_that_hangs_holds_no_job_and_counts_for_nothing(start: Start, tmp_path: Path) -> None:
    folder = make(tmp_path / "run", WAITS)
    burns = "trap '' TERM INT HUP USR1 USR2\nfor ((i = 0; i < 300000; i++)); do :; done\n"
    (folder / "sampler" / "sample.sh").write_text(burns + "echo $$ >pid; while :; do sleep 0.1; done")
    job = start(folder)
    eventually(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip(), "the sampler runs")
    (folder / "payload" / "go").touch()
    assert job.wait(PATIENCE) == 0
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)  # it is still there
    status = parse_status((folder / "status").read_bytes())
    assert status is not None
    assert status.exit_code == 0


def test_a_requeued_job_appends(start: Start, tmp_path: Path) -> None:
    folder = make(tmp_path / "run", WAITS)
    (folder / "messages.jsonl").touch()
    for count in (0, 1):
        job = start(folder, SLURM_RESTART_COUNT=str(count))
        eventually(lambda: heads(folder) == count + 1, "a head")  # noqa: B023
        (folder / "payload" / "go").touch()
        assert job.wait(PATIENCE) == 0
        (folder / "payload" / "go").unlink()
    assert len(usage(folder).starts) == 2


def test_its_own_failure_is_one_line_in_its_file(start: Start, tmp_path: Path) -> None:
    folder = make(tmp_path / "run", WAITS)
    (folder / "sampler" / "counters.py").write_text(
        "class Family: pass\nclass Cgroup: pass\nLinux = Ps = None\n"
    )
    job = start(folder)
    eventually(lambda: lines(folder), "the line")
    (folder / "payload" / "go").touch()
    assert job.wait(PATIENCE) == 0
    assert [list(line) for line in lines(folder)] == [["error"]]
    assert (folder / "stderr.log").read_bytes() == b""
    assert parse_usage((folder / "usage" / "0.jsonl").read_bytes()) is None


def test_without_python_bash_does_the_most_needed(start: Start, tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system has no /proc")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "date", "uname", "getconf", "mkfifo", "rm", "mkdir", "grep", "tail", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    folder = make(tmp_path / "run", WORKS)
    (folder / "payload" / "go").touch()
    assert start(folder, PATH=str(programs)).wait(PATIENCE) == 0
    last = usage(folder).samples[-1]
    assert last.cpu == pytest.approx(float((folder / "payload" / "used").read_text()), rel=0.1)
    assert last.peak is not None
    assert (folder / "stderr.log").read_bytes() == b""


@linux
@pytest.mark.parametrize("how", ["end", "kill"])
def test_on_another_node_it_ends_with_who_started_it(tmp_path: Path, how: str) -> None:
    folder = make(tmp_path / "run", "")
    (folder / "ranks").mkdir()
    env = {
        "DAGSTER_SLURM_RUN_DIR": str(folder),
        "SLURM_PROCID": "2",
        "SLURM_NODEID": "1",
        "SLURM_LOCALID": "0",
    }
    payload = f"import os\nwhile not os.path.exists({str(folder / 'go')!r}) and os.getppid() != 1: pass"
    rank = [sys.executable, str(LAUNCHERS / "rank.py"), "--number=SLURM_PROCID", "--"]
    job = subprocess.Popen([*rank, sys.executable, "-c", payload], env={**outside_slurm(), **env})
    file = folder / "usage" / "1.jsonl"
    try:
        eventually(lambda: file.exists() and file.read_bytes().count(b"\n") > 1, "the first sample")
        if how == "kill":
            job.kill()
            eventually(lambda: not samplers(folder), "the sampler is gone")
        else:
            (folder / "go").touch()
            assert job.wait(PATIENCE) == 0
            assert samplers(folder) == []
    finally:
        job.kill()
        job.wait()
    found = parse_usage(file.read_bytes())
    assert found is not None
    assert (found.samples[-1].cpu or 0) > 0


class Clock:
    """A clock that only waiting moves; the job ends after ``end`` seconds."""

    def __init__(self, end: float) -> None:
        self.now, self.end = 0.0, end

    def wait(self, seconds: float) -> bool:
        self.now = min(self.end, self.now + seconds)
        return self.now >= self.end


class FakeGpu:
    uuid, name, memory = "GPU-3922f63d-5905-9357-04cb-9e8f97cd46e1", "NVIDIA H100 80GB HBM3", 81559 * MIB

    def __init__(self) -> None:
        self.looks = 0

    def look(self) -> list[float | None]:
        self.looks += 1
        return [0.5 + self.looks % 2 / 4, 81559 * MIB - 1, 699.99, 61, 12345678901.0 + 3500 * self.looks]


class FakeFamily:
    counts_bytes = True
    used = (123456789.12, 2**50, 2**50)

    def look(self) -> int:
        return 2**39


def record(
    sample: ModuleType, counters: ModuleType, file: Path, days: float, gpus: Sequence[object] = ()
) -> None:
    clock = Clock(days * 86400)
    made = sample.Usage(FakeFamily(), counters.Cgroup("", ""), list(gpus))
    made._ports = []
    written = sample.Lines(str(file))
    written.write(sample.head(made, counters.Cgroup("", ""), {"SLURMD_NODENAME": "node1"}, 1796037430.8))
    sample.record(made, written, clock.wait, clock=lambda: clock.now, spent=lambda: 0.0)


def test_a_week_with_eight_gpus(sample: ModuleType, counters: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "0.jsonl"
    record(sample, counters, file, 7, [FakeGpu() for _ in range(8)])
    assert file.stat().st_size < 2 * MIB
    found = parse_usage(file.read_bytes())
    assert found is not None
    assert len(found.gpus) == len(found.samples[0].gpus) == 8
    at = [sample.at - 1796037430.8 for sample in found.samples]
    assert at[0] == 0
    assert at[-1] == pytest.approx(7 * 86400)
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert max(gaps) <= 306
    assert max(gap for gap, moment in zip(gaps, at, strict=False) if moment < 600) <= 11
    last = found.samples[-1].gpus[0]
    assert last.busy == pytest.approx(0.625, abs=0.01)
    assert (last.memory, last.watts, last.celsius) == (81559 * MIB - 1, 699.99, 61)
    assert last.joules == pytest.approx(7 * 86400 / 5 * 3500, rel=0.01)


def test_a_file_has_a_bound_and_the_last_sample(
    sample: ModuleType, counters: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "0.jsonl"
    monkeypatch.setattr(sample, "MOST", 50_000)
    record(sample, counters, file, 0.5, [FakeGpu() for _ in range(8)])
    found = parse_usage(file.read_bytes())
    assert found is not None
    assert 50_000 - 2**13 < file.stat().st_size <= 50_000
    assert found.samples[-1].at == pytest.approx(1796037430.8 + 86400 / 2)


def test_a_look_that_is_dear_is_taken_less_often(sample: ModuleType) -> None:
    class Dear:
        looks = 0

        def look(self, at: float) -> None:
            self.looks += 1

        def line(self) -> dict[str, object]:
            return {}

    usage, clock, lines = Dear(), Clock(86400), type("Lines", (), {"write": lambda *_, **__: None})()
    sample.record(usage, lines, clock.wait, clock=lambda: clock.now, spent=lambda: usage.looks * 0.1)
    assert usage.looks * 0.1 / 86400 <= 0.0021


def test_energy_without_a_meter_is_power_over_time(
    sample: ModuleType, counters: ModuleType, tmp_path: Path
) -> None:
    class Meterless(FakeGpu):
        def look(self) -> list[float | None]:
            return [None, None, 100.0, None, None]

    record(sample, counters, tmp_path / "0.jsonl", 0.01, [Meterless()])
    found = parse_usage((tmp_path / "0.jsonl").read_bytes())
    assert found is not None
    assert found.samples[-1].gpus[0].joules == pytest.approx(86400, rel=0.01)


@pytest.mark.parametrize("text", ["a b", 'say "hi"', "back\\slash", "ünï\n\x00"])
def test_what_is_written_is_json(sample: ModuleType, text: str) -> None:
    value = {"a": [text, None, 1, 1.23456, [2**60]], "b": {}}
    read = json.loads(sample.encode(value))
    assert read["a"][1:] == [None, 1, 1.23, [2**60]]
    assert len(read["a"][0]) == len(text)


def tree(root: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def test_a_cgroup_of_version_2(counters: ModuleType, tmp_path: Path) -> None:
    job = "system.slice/slurmstepd.scope/job_12"
    files = {
        "memory.current": "5000\n",
        "memory.max": "1048576\n",
        "memory.stat": "anon 1\ninactive_file 2000\n",
    }
    files["cpu.stat"] = "usage_usec 2500000\nuser_usec 1\n"
    root = tree(tmp_path, {f"{job}/{name}": text for name, text in files.items()})
    found = counters.Cgroup("12", f"0::/{job}/step_batch/user/task_0\n", root)
    assert (found.source, found.memory(), found.limit(), found.cpu()) == ("cgroup2", 3000, 1048576, 2.5)
    (tmp_path / job / "memory.max").write_text("max\n")
    assert found.limit() is None
    for other in ("1", "123", ""):
        none = counters.Cgroup(other, f"0::/{job}/step_batch\n", root)
        assert (none.source, none.memory(), none.limit(), none.cpu()) == ("processes", None, None, None)


def test_a_cgroup_without_the_controller_of_memory(counters: ModuleType, tmp_path: Path) -> None:
    root = tree(tmp_path, {"job_12/cpu.stat": "usage_usec 1000000\n"})
    found = counters.Cgroup("12", "0::/job_12/step_0\n", root)
    assert (found.source, found.memory(), found.limit(), found.cpu()) == ("processes", None, None, 1.0)


def test_a_cgroup_of_version_1(counters: ModuleType, tmp_path: Path) -> None:
    job = "slurm/uid_7/job_12"
    files = {
        f"memory/{job}/memory.usage_in_bytes": "5000\n",
        f"memory/{job}/memory.limit_in_bytes": "9223372036854771712\n",
        f"memory/{job}/memory.stat": "inactive_file 1\ntotal_inactive_file 2000\n",
        f"cpuacct/{job}/cpuacct.usage": "1500000000\n",
    }
    own = f"9:name=systemd:/\n4:memory:/{job}/step_batch/task_0\n2:cpu,cpuacct:/{job}/step_batch\n0::/\n"
    found = counters.Cgroup("12", own, tree(tmp_path, files))
    assert (found.source, found.memory(), found.limit(), found.cpu()) == ("cgroup1", 3000, None, 1.5)


def test_the_nodes_networks(counters: ModuleType, tmp_path: Path) -> None:
    def net(name: str, kind: str, received: int) -> dict[str, str]:
        counts = {"type": kind, "statistics/rx_bytes": str(received), "statistics/tx_bytes": "1"}
        return {f"net/{name}/{file}": text for file, text in counts.items()}

    files = {**net("lo", "772", 1), **net("eth0", "1", 10), **net("br0", "1", 10), **net("ib0", "32", 7)}
    tree(tmp_path, files)
    (tmp_path / "net/eth0/device").mkdir()
    port = "infiniband/mlx5_0/ports/1/counters/port_"
    tree(tmp_path, {port + "rcv_data": "100", port + "xmit_data": "5"})

    def total(way: int) -> int:
        return sum(counters.number(names[way]) * unit for names, unit in counters.ports(str(tmp_path)))

    assert (total(0), total(1)) == (410, 21)
    shutil.rmtree(tmp_path / "net/eth0/device")
    shutil.rmtree(tmp_path / "infiniband")
    assert total(0) == 20


def test_the_processes_of_ps(counters: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "1 0 100 0:01.50\n10 1 1000 1:02.25\n11 10 500 1-02:03:04\n12 1 7 0:00.00\n"
    (tmp_path / "ps").write_text(f"#!/bin/sh\nprintf '{rows}'\n")
    (tmp_path / "ps").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    family = counters.Family(counters.Ps(), 10, [])
    assert family.look() == 1500 * 1024
    assert family.used[0] == pytest.approx(62.25 + 86400 + 2 * 3600 + 3 * 60 + 4)
    (tmp_path / "ps").write_text("#!/bin/sh\nprintf '10 1 1000 1:02.25\\n'\n")
    assert family.look() == 1000 * 1024
    assert family.used[0] == pytest.approx(62.25 + 86400 + 2 * 3600 + 3 * 60 + 4)
