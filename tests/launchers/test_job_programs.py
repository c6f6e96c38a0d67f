"""The programs that run inside the job, one by one: ports, nodes, records, processes, one rank."""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launchers.harness import Run, processes_of, wait_until
from waiting import PATIENCE

import dagster_slurm_components.launchers as launchers

JOB = Path(launchers.__file__).parent / "job"
VERMIN = Path(sys.executable).parent / "vermin"


@pytest.fixture(scope="module")
def program() -> Callable[[str], ModuleType]:
    """Load a program as a module; its siblings are found as they are in a run directory."""

    def load(name: str) -> ModuleType:
        if name not in loaded:
            spec = importlib.util.spec_from_file_location(name, JOB / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        return loaded[name]

    loaded: dict[str, ModuleType] = {}
    for name in (
        "records",
        "command_line",
        "processes",
        "sampling",
        "ports",
        "nodes",
        "launch_torchrun",
        "ray_node",
    ):
        load(name)
    yield load
    for name in loaded:
        sys.modules.pop(name, None)


def test_the_programs_run_on_python_3_6():
    argv = [str(VERMIN), "--target=3.6-", "--violations", "--eval-annotations", str(JOB)]
    completed = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


MIG = ["MIG-0a0a0a0a-1111-2222-3333-444444444444", "MIG-0b0b0b0b-1111-2222-3333-444444444444"]
GPUS = [
    ("0", ["0"]),
    ("0,1, 3", ["0", "1", "3"]),
    (",".join(MIG), MIG),
    ("MIG-GPU-1/7/0,MIG-GPU-1/8/0", ["MIG-GPU-1/7/0", "MIG-GPU-1/8/0"]),
    ("GPU-3922f63d,GPU-4922f63d", ["GPU-3922f63d", "GPU-4922f63d"]),
    ("", []),
    ("NoDevFiles", []),
    ("0,-1,1", ["0"]),
]
"""Values of CUDA_VISIBLE_DEVICES, and the GPUs that CUDA makes of them."""


class TestPorts:
    def test_two_claims_never_share_a_port(self, program):
        ports = program("ports")
        claims = [ports.claim(seed=7) for _ in range(3)]
        try:
            firsts = sorted(first for _, first in claims)
            assert all(later - earlier >= ports.SIZE for earlier, later in pairwise(firsts))
        finally:
            for lock, _ in claims:
                lock.close()

    def test_a_block_with_a_listener_in_it_is_passed_over(self, program):
        ports = program("ports")
        lock, first = ports.claim(seed=11)
        lock.close()
        with socket.socket() as other:
            other.bind(("127.0.0.1", first + 5))
            other.listen()
            again, elsewhere = ports.claim(seed=(first - ports.LOWEST) // ports.SIZE)
            again.close()
        assert elsewhere != first

    def test_a_claim_ends_with_its_process(self, program):
        ports = program("ports")
        code = "import ports; lock, first = ports.claim(13); print(first)"
        argv = [sys.executable, "-B", "-c", code]
        first = int(subprocess.run(argv, cwd=JOB, capture_output=True, text=True, check=True).stdout)
        lock, again = ports.claim((first - ports.LOWEST) // ports.SIZE)
        lock.close()
        assert again == first

    def test_it_says_so_when_all_blocks_are_taken(self, program, monkeypatch):
        ports = program("ports")
        monkeypatch.setattr(ports, "is_free", lambda port: False)
        with pytest.raises(ports.NoFreePortsError, match="no block of 16 free TCP ports"):
            ports.claim(1)


class TestNodes:
    @pytest.mark.parametrize(
        ("text", "cpus"), [("", []), ("8", [8]), ("4(x2)", [4, 4]), ("4(x2),2,16(x3)", [4, 4, 2, 16, 16, 16])]
    )
    def test_cpus_by_node(self, program, text, cpus):
        assert program("nodes").cpus_by_node(text) == cpus

    @given(st.lists(st.tuples(st.integers(1, 999), st.integers(1, 9)), min_size=1))
    def test_cpus_by_node_reads_what_slurm_writes(self, program, groups):
        text = ",".join(f"{cpus}(x{times})" if times > 1 else str(cpus) for cpus, times in groups)
        assert program("nodes").cpus_by_node(text) == [cpus for cpus, times in groups for _ in range(times)]

    @pytest.mark.parametrize(("cuda", "gpus"), GPUS)
    def test_visible_gpus(self, program, monkeypatch, cuda, gpus):
        monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cuda)
        assert program("nodes").visible_gpus() == gpus
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        assert len(program("nodes").visible_gpus()) == 8
        monkeypatch.delenv("ROCR_VISIBLE_DEVICES")
        assert program("nodes").visible_gpus() is None

    @pytest.mark.parametrize(("cuda", "gpus"), [*GPUS, (None, ["as Slurm says"] * 3)])
    def test_ray_has_the_gpus_that_are_visible(self, program, monkeypatch, cuda, gpus):
        values = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "4", "SLURM_GPUS_ON_NODE": "3"}
        for name, value in {**values, "CUDA_VISIBLE_DEVICES": cuda, "ROCR_VISIBLE_DEVICES": None}.items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        ray = program("ray_node")
        options = argparse.Namespace(**ray.OPTIONS)
        assert f"--num-gpus={len(gpus)}" in ray.share(options, 0)

    def test_a_step_has_all_cpus_of_the_job(self, program, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", "4(x2)")
        assert "--cpus-per-task=4" in program("nodes").srun_options()
        monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", "4,2")
        assert not [option for option in program("nodes").srun_options() if "cpus-per-task" in option]

    @pytest.mark.parametrize(
        ("found", "address"),
        [
            (["127.0.1.1", "10.1.2.3"], "10.1.2.3"),
            (["fe80::1%ib0", "2001:db8::7", "10.1.2.3"], "10.1.2.3"),
            (["::1", "2001:db8::7"], "2001:db8::7"),
            (["169.254.1.1", "127.0.0.1"], "192.0.2.77"),
            ([], "192.0.2.77"),
        ],
    )
    def test_a_node_is_reached_by_an_address_that_others_can_reach(
        self, program, monkeypatch, found, address
    ):
        nodes = program("nodes")
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        answer = [(None, None, None, "", (text, 0)) for text in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
        monkeypatch.setattr(nodes, "_address_of_default_route", lambda: "192.0.2.77")
        assert nodes.own_address("") == address

    def test_without_slurm_nobody_else_gets_in(self, program, monkeypatch):
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        assert program("nodes").own_address("-ib0") == "127.0.0.1"

    def test_a_suffix_that_does_not_resolve_is_told(self, program, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setenv("SLURMD_NODENAME", "node1")
        with pytest.raises(OSError, match=r"host_suffix: the name node1-no\.invalid does not resolve"):
            program("nodes").own_address("-no.invalid")

    def test_ipv6_addresses_get_brackets(self, program):
        assert program("nodes").endpoint("2001:db8::7", 80) == "[2001:db8::7]:80"
        assert program("nodes").endpoint("10.1.2.3", 80) == "10.1.2.3:80"

    @pytest.mark.parametrize(
        ("wanted", "allocated", "nnodes"),
        [("", 3, "3"), ("1:4", 2, "1:2"), ("2:4", 8, "2:4"), ("2:2", 2, "2:2")],
    )
    def test_agents_do_not_wait_for_more_nodes_than_the_job_has(self, program, wanted, allocated, nnodes):
        assert program("launch_torchrun").range_of_nodes(wanted, allocated) == nnodes


class TestRecords:
    @pytest.fixture(autouse=True)
    def run_directory(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DAGSTER_SLURM_RUN_DIR", str(tmp_path))
        monkeypatch.setenv("SLURMD_NODENAME", "node1")
        (tmp_path / "ranks").mkdir()

    def test_the_first_failure_decides(self, program, tmp_path):
        records = program("records")
        records.record("3", 7)
        records.record("0", 1)
        assert records.conclude(143) == 7
        assert (tmp_path / "status").read_text() == "failed_rank=3 node1 7\n"

    def test_an_agent_that_only_reports_a_rank_comes_after_it(self, program):
        records = program("records")
        records.record("agent", 1)
        records.record("2", 9)
        assert records.first_failure() == ("2", "node1", 9)

    def test_a_killed_agent_is_the_cause_and_not_its_ranks(self, program):
        records = program("records")
        records.record("agent", 137)
        records.record("2", 1)
        assert records.first_failure() == ("agent", "node1", 137)

    def test_failures_before_a_restart_do_not_count(self, program):
        records = program("records")
        records.record("1", 5, start=0)
        records.record("2", 6, start=1)
        assert records.first_failure() == ("2", "node1", 6)

    def test_nothing_is_noted_of_a_good_end(self, program, tmp_path):
        records = program("records")
        records.record("1", 5)  # torchrun started all ranks again, and they did well
        assert records.conclude(0) == 0
        assert not (tmp_path / "status").exists()

    def test_a_job_that_was_told_to_stop_blames_no_rank(self, program, tmp_path):
        records = program("records")
        records.record("1", 5)  # survived by a restart
        assert records.conclude(143, stopped=True) == 143
        assert not (tmp_path / "status").exists()

    def test_a_requeued_job_sets_the_earlier_records_aside(self, program, tmp_path, monkeypatch):
        records = program("records")
        records.record("1", 5)
        monkeypatch.setenv("DAGSTER_SLURM_RESTART_COUNT", "1")
        records.prepare()
        assert records.first_failure() is None
        assert (tmp_path / "ranks.0" / "1.failed").exists()

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (7, "ended with exit code 7"),
            (137, "was killed by signal 9 (SIGKILL)"),
            (139, "was killed by signal 11 (SIGSEGV)"),
            (255, "ended with exit code 255"),
        ],
    )
    def test_exit_codes_in_words(self, program, code, words):
        assert program("records").in_words(code) == words

    def test_the_end_of_a_log_is_readable(self, program, tmp_path):
        log = tmp_path / "log"
        log.write_bytes(b"x" * 100_000 + b"\n\x1b[31mred\x1b[0m \xff\nlast\n")
        assert program("records").tail(str(log), 2) == "red \N{REPLACEMENT CHARACTER}\nlast"
        assert program("records").tail(str(tmp_path / "none")) == ""


@pytest.mark.parametrize(
    ("last", "again"),
    [
        ("Exception: The current node timed out during startup. This could happen because", True),
        ("Exception: No node info found for head node in GCS. Did the head node or gcs start", True),
        ("ValueError: no such option", False),
    ],
)
def test_ray_that_was_slow_to_start_is_started_again_while_there_is_time(
    program, monkeypatch, tmp_path, last, again
):
    ray_node = program("ray_node")
    node = object.__new__(ray_node.RayNode)
    node.log = str(tmp_path / "log")
    Path(node.log).write_text(f"Traceback\n{last}\n")
    starts = []
    monkeypatch.setattr(node, "_run", lambda: starts.append(last), raising=False)
    monkeypatch.setattr(ray_node.time, "sleep", lambda seconds: None)
    node._give_up_at = ray_node.time.monotonic() + 60
    assert node.start_again() is again
    assert len(starts) == again
    node._give_up_at = ray_node.time.monotonic() - 1
    assert not node.start_again()


def test_folders_of_killed_ray_jobs_go_while_other_jobs_sweep_too(program, tmp_path, monkeypatch):
    ray_node = program("ray_node")
    old, held, gone, young = (
        tmp_path / f"{ray_node.OURS}{name}" for name in ("old", "held", "gone", "young")
    )
    for folder in (old, held, young):
        folder.mkdir()
    for folder in (old, held):
        os.utime(folder, (0, 0))
    job = os.open(held, os.O_RDONLY)
    fcntl.flock(job, fcntl.LOCK_EX)
    # Seen, and removed by another job before it is looked at.
    monkeypatch.setattr(ray_node.glob, "glob", lambda pattern: list(map(str, (gone, old, held, young))))
    ray_node.sweep(str(tmp_path))
    os.close(job)
    assert sorted(tmp_path.iterdir()) == [held, young]


@pytest.mark.parametrize(
    ("version", "warned"), [("2.9.3", True), ("2.51.1", True), ("2.52.0", False), ("3.0.0rc1", False)]
)
def test_a_ray_that_lets_in_everybody_is_told(program, version, warned):
    said = program("ray_wait").warning(version)
    assert bool(said) is warned
    assert not warned or f"Ray {version} asks for no token" in said


def test_a_node_without_srun_is_told(tmp_path):
    env = {
        "PATH": str(tmp_path),
        "DAGSTER_SLURM_RUN_DIR": str(tmp_path),
        "DAGSTER_SLURM_PYTHON": sys.executable,
    }
    argv = [sys.executable, "-B", str(JOB / "launch_srun.py"), "--", "true"]
    completed = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert completed.stderr == "dagster-slurm: the launcher can't start: there is no srun on this node\n"
    assert completed.returncode == 127


RANK = """
import os, sys, time, subprocess, signal
mode = sys.argv[1]
if mode == "daemon":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode in ("stubborn", "wait"):
    print("ready", flush=True)
    time.sleep(600)
print(sorted(name for name in os.environ if name.startswith("DAGSTER_PIPES_")), flush=True)
sys.stderr.write("boom\\n")
sys.exit(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
"""


class TestRank:
    """One rank, run as it is in a job."""

    @pytest.fixture
    def start(self, tmp_path):
        (tmp_path / "ranks").mkdir()
        (tmp_path / "payload.py").write_text(RANK)
        started = []

        def start(number: int, *payload: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
            env = {
                **os.environ,
                "DAGSTER_SLURM_RUN_DIR": str(tmp_path),
                "DAGSTER_SLURM_PYTHON": sys.executable,
                "DAGSTER_PIPES_CONTEXT": "c",
                "DAGSTER_PIPES_MESSAGES": "m",
                "NUMBER": str(number),
            }
            argv = [sys.executable, "-B", str(JOB / "rank.py"), "--number=NUMBER", *options, "--", *payload]
            process = subprocess.Popen(
                argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.communicate()
        wait_until(lambda: not processes_of(tmp_path), "the end of all ranks")

    @pytest.fixture
    def payload(self, tmp_path):
        return ("@python", str(tmp_path / "payload.py"))

    def test_the_first_rank_speaks_to_dagster_and_to_the_log(self, start, payload):
        out, err = (process := start(0, *payload, "ok")).communicate(timeout=PATIENCE)
        assert out == "['DAGSTER_PIPES_CONTEXT', 'DAGSTER_PIPES_MESSAGES']\n"
        assert (process.returncode, err) == (0, "boom\n")

    def test_other_ranks_have_their_own_logs_and_no_pipes(self, start, payload, tmp_path):
        out, err = (process := start(5, *payload, "ok")).communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "", "")
        assert (tmp_path / "ranks" / "5.out").read_text() == "[]\n"
        assert (tmp_path / "ranks" / "5.err").read_text() == "boom\n"

    def test_all_ranks_can_be_shown(self, start, payload):
        out, err = start(5, *payload, "ok", options=("--output=all",)).communicate(timeout=PATIENCE)
        assert (out, err) == ("[]\n", "boom\n")

    def test_a_failure_is_told_with_the_end_of_the_log(self, start, payload, tmp_path):
        _, err = (process := start(5, *payload, "fail", "7")).communicate(timeout=PATIENCE)
        assert process.returncode == 7
        assert "rank 5 on" in err
        assert "ended with exit code 7; the end of ranks/5.err:\nboom" in err
        assert "code=7\n" in (tmp_path / "ranks" / "5.failed").read_text()

    @pytest.mark.parametrize(("program_name", "code"), [("no-such-program", 127), ("/", 126)])
    def test_a_program_that_can_not_be_run_is_told(self, start, program_name, code):
        _, err = (process := start(0, program_name)).communicate(timeout=PATIENCE)
        assert process.returncode == code
        assert "can't be started" in err

    def test_what_a_rank_leaves_behind_is_ended(self, start, payload, tmp_path):
        process = start(5, *payload, "daemon")
        process.communicate(timeout=PATIENCE)
        assert processes_of(tmp_path) == {}

    def test_a_rank_that_ignores_sigterm_is_killed_and_no_failure(self, start, payload, tmp_path):
        process = start(5, *payload, "stubborn", options=("--grace=0.3", "--signals=stop"))
        wait_until(lambda: "ready" in Run(tmp_path).read("ranks/5.out"), "the rank's start")
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signal.SIGKILL
        assert "had not ended 0.3 s after it was told to, and was killed" in err
        assert not (tmp_path / "ranks" / "5.failed").exists()

    def test_a_rank_dies_with_its_watcher(self, start, payload, tmp_path):
        process = start(5, *payload, "wait")
        wait_until(lambda: "ready" in Run(tmp_path).read("ranks/5.out"), "the rank's start")
        process.kill()
        process.communicate(timeout=PATIENCE)
        wait_until(lambda: not processes_of(tmp_path), "the rank's end")
