"""The srun launcher on a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from launchers.harness import nodes_of, prepare, slurm, submit, wait_gone
from waiting import eventually

from dagster_slurm_components.jobs.usage import parse_usage, usage_file
from dagster_slurm_components.spec.launchers import SrunLauncher
from dagster_slurm_components.spec.resources import Resources
from slurm_testcluster import Cluster

pytestmark = pytest.mark.slurm

FOUR = Resources(nodes=2, ntasks_per_node=2, cpus_per_task=2, mem="200M", time="01:00:00")

RANKS = """
import os, signal, sys, time
rank, mode = int(os.environ["SLURM_PROCID"]), sys.argv[1]
if mode == "stubborn" and rank == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda number, frame: print("checkpoint", flush=True))
pipes = any(name.startswith("DAGSTER_PIPES_") for name in os.environ)
print("rank", rank, "of", os.environ["SLURM_NTASKS"], "on", os.environ["SLURMD_NODENAME"], "cpus",
      os.environ["SLURM_CPUS_PER_TASK"], "pipes", pipes, flush=True)
if mode == "exit7" and rank == 3:
    sys.stderr.write("no such dataset\\n")
    sys.exit(7)
deadline = time.monotonic() + (0 if mode == "ok" else 600)
while time.monotonic() < deadline:
    time.sleep(0.1)
    if mode == "stubborn" and rank == 3 and os.path.exists("go"):
        sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run 'a' $(b) ü"


@pytest.mark.smoke
def test_one_process_for_each_task(cluster: Cluster, folder: Path):
    run = prepare(folder, SrunLauncher(), RANKS, args=["ok"], resources=FOUR, scheduler="slurm")
    job = submit(cluster, run)
    run.wait_ended()
    assert run.exit_code == 0, run.report()
    first, second = nodes_of(cluster, run)
    lines = [run.stdout, *(run.read(f"ranks/{rank}.out") for rank in (1, 2, 3))]
    where = [first, first, second, second]
    assert lines == [f"rank {r} of 4 on {where[r]} cpus 2 pipes {r == 0}\n" for r in range(4)]
    wait_gone(cluster, job)
    assert run.processes() == {}


def test_all_ranks_can_be_shown(cluster: Cluster, folder: Path):
    launcher = SrunLauncher(output="all", options={"label": True})
    run = prepare(folder, launcher, RANKS, args=["ok"], resources=FOUR, scheduler="slurm")
    submit(cluster, run)
    run.wait_ended()
    assert sorted(line.split(" of ")[0] for line in run.stdout.splitlines()) == [
        f"{r}: rank {r}" for r in range(4)
    ]


def test_f46_a_rank_that_exits_with_7(cluster: Cluster, folder: Path):
    run = prepare(folder, SrunLauncher(), RANKS, args=["exit7"], resources=FOUR, scheduler="slurm")
    job = submit(cluster, run)
    run.wait_ended()
    node = nodes_of(cluster, run)[1]
    assert (run.exit_code, run.failed_rank) == (7, ("3", node, "7")), run.report()
    assert f"rank 3 on {node} ended with exit code 7; the end of ranks/3.err:\nno such dataset" in run.stderr
    wait_gone(cluster, job)
    assert run.processes() == {}


def test_kill_9_of_one_rank(cluster: Cluster, folder: Path):
    run = prepare(folder, SrunLauncher(), RANKS, args=["wait"], resources=FOUR, scheduler="slurm")
    job = submit(cluster, run)
    run.wait_for("rank 2", "ranks/2.out")
    run.kill(r"python\S* payload.py", SLURM_PROCID="2")
    run.wait_ended()
    node = nodes_of(cluster, run)[1]
    assert (run.exit_code, run.failed_rank) == (137, ("2", node, "137")), run.report()
    wait_gone(cluster, job)
    assert run.processes() == {}


def test_f46_a_rank_that_ignores_sigterm_does_not_keep_a_failed_job(cluster: Cluster, folder: Path):
    launcher = SrunLauncher(grace=2)
    run = prepare(folder, launcher, RANKS, args=["stubborn"], resources=FOUR, scheduler="slurm")
    job = submit(cluster, run)
    run.wait_for("rank 0")
    (folder / "payload" / "go").touch()
    run.wait_ended()
    assert (run.exit_code, run.failed_rank[0]) == (7, "3"), run.report()
    wait_gone(cluster, job)
    assert run.processes() == {}


@pytest.mark.smoke
def test_cancelling_stops_all_ranks_and_blames_none(cluster: Cluster, folder: Path):
    run = prepare(folder, SrunLauncher(), RANKS, args=["wait"], resources=FOUR, scheduler="slurm")
    job = submit(cluster, run)
    run.wait_for("rank 3", "ranks/3.out")
    slurm(cluster, "scancel", job)
    wait_gone(cluster, job)
    assert run.processes() == {}
    assert "failed_rank" not in run.status, run.report()


def test_every_rank_sees_a_users_signal_once(cluster: Cluster, folder: Path):
    """A warning before the time limit, `signal: USR1@120` and `B:USR1@120` alike."""
    run = prepare(folder, SrunLauncher(), RANKS, args=["wait"], resources=FOUR, scheduler="slurm")
    job = submit(cluster, run)
    for rank in (1, 2, 3):
        run.wait_for(f"rank {rank}", f"ranks/{rank}.out")
    run.wait_for("rank 0")
    slurm(cluster, "scancel", "--signal=USR1", job)
    run.wait_for("checkpoint", "ranks/3.out")
    slurm(cluster, "scancel", "--batch", "--signal=USR1", job)
    run.wait_for("checkpoint\ncheckpoint\n", "ranks/3.out")
    run.wait_for("checkpoint\ncheckpoint\n")
    assert not run.ended, run.report()
    slurm(cluster, "scancel", job)
    wait_gone(cluster, job)
    assert run.stdout.count("checkpoint") == 2


def cpu_seen(file: Path) -> float:
    found = parse_usage(file.read_bytes()) if file.exists() else None
    return (found.samples[-1].cpu or 0) if found is not None and found.samples else 0


def test_each_node_is_sampled(cluster: Cluster, folder: Path):
    works = "import os, time\nwhile time.process_time() < 4: sum(range(1000))\n"
    works += "while not os.path.exists('go'): time.sleep(0.2)\n"
    run = prepare(folder, SrunLauncher(), works, resources=FOUR, scheduler="slurm")
    job = submit(cluster, run)
    # What a rank used after the last look at it is lost where another one outlives it.
    for number in range(2):
        eventually(lambda: cpu_seen(folder / usage_file(number)) > 7.5, "all work is seen")  # noqa: B023
    (folder / "payload" / "go").touch()
    run.wait_ended()
    assert run.exit_code == 0, run.report()
    nodes = nodes_of(cluster, run)
    assert sorted(path.name for path in (folder / "usage").iterdir()) == ["0.jsonl", "1.jsonl"]
    for number, node in enumerate(nodes):
        found = parse_usage((folder / usage_file(number)).read_bytes())
        assert found is not None
        assert (found.node, found.cpus, found.memory_limit) == (node, 4, 200 * 2**20)
        # Two ranks; what srun's own processes have used by their end is lost with them, where there is no cgroup.
        assert 6 < (found.samples[-1].cpu or 0) < 9
    wait_gone(cluster, job)
    assert run.processes() == {}
