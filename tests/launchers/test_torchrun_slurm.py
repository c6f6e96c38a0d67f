"""The torchrun launcher: real PyTorch over the nodes of a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from launchers.harness import Run, nodes_of, sampled, slurm, two_node_jobs, wait_gone
from launchers.payloads import TORCH_SUM

from dagster_slurm_components.spec.launchers import TorchrunLauncher
from slurm_testcluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def job(cluster: Cluster, torch_venv: Path, tmp_path: Path):
    """Submit 2 x 2 ranks; whatever is left of them at the end of the test is cancelled."""
    with two_node_jobs(
        cluster, tmp_path, torch_venv, TORCH_SUM, TorchrunLauncher(nproc_per_node=2, grace=3), mem="2G"
    ) as start:
        yield start


def runs(run: Run) -> None:
    """Wait until all four ranks have met."""
    for rank in (1, 2, 3):
        run.wait_for("of 4 sum 6", f"ranks/{rank}.out")


def test_an_all_reduce_over_two_nodes(cluster: Cluster, job):
    run, number = job("sum")
    run.wait_ended()
    assert run.exit_code == 0, run.report()
    lines = [run.stdout, *(run.read(f"ranks/{rank}.out") for rank in (1, 2, 3))]
    where = sorted(line.split(" on ")[1].split()[0] for line in lines)
    first, second = nodes_of(cluster, run)
    assert where == [first, first, second, second]
    for rank, line in enumerate(lines):
        assert line.startswith(f"rank {rank} of 4 sum 6 pipes {rank == 0} on "), run.report()
        assert line.endswith("threads 1\n")
    assert sampled(run) == [first, second]
    wait_gone(cluster, number)
    assert run.processes() == {}


def test_kill_9_of_one_rank(cluster: Cluster, job):
    run, number = job("wait")
    runs(run)
    run.kill(r"python payload.py", RANK="2")
    run.wait_ended()
    assert (run.exit_code, run.failed_rank[0], run.failed_rank[2]) == (137, "2", "137"), run.report()
    assert run.failed_rank[1] == run.read("ranks/2.out").split(" on ")[1].split()[0]
    wait_gone(cluster, number)
    assert run.processes() == {}


def test_kill_9_of_an_agent(cluster: Cluster, job):
    run, number = job("wait")
    runs(run)
    second = nodes_of(cluster, run)[1]
    run.kill(r"python -m torch.distributed.run", SLURMD_NODENAME=second)
    run.wait_ended()
    assert (run.exit_code, run.failed_rank) == (137, ("agent", second, "137")), run.report()
    wait_gone(cluster, number)
    assert run.processes() == {}


def test_f46_a_rank_that_exits_with_7(cluster: Cluster, job):
    run, number = job("exit7")
    run.wait_ended()
    assert (run.exit_code, run.failed_rank[0], run.failed_rank[2]) == (7, "3", "7"), run.report()
    wait_gone(cluster, number)
    assert run.processes() == {}


def test_a_rank_that_hangs_before_the_process_group_and_ignores_sigterm(cluster: Cluster, job):
    """The payload's own timeout ends the wait; the rank that hangs is named, and killed."""
    run, number = job("hang", GROUP_TIMEOUT="6")
    run.wait_for("end of ranks/", "stderr.log")
    run.wait_ended()
    assert run.exit_code == 1, run.report()
    assert "rank 3 on" in run.stderr
    assert "had not ended 3 s after it was told to, and was killed" in run.stderr
    wait_gone(cluster, number)
    assert run.processes() == {}


def test_a_node_that_never_comes_to_the_rendezvous(cluster: Cluster, job, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if os.environ.get('SLURM_NODEID') == '1' and 'torch.distributed.run' in sys.orig_argv:\n"
        "    time.sleep(600)\n"
    )
    launcher = TorchrunLauncher(nproc_per_node=2, rendezvous_timeout=8, grace=3)
    run, number = job("sum", launcher, PYTHONPATH=str(tmp_path))
    run.wait_ended()  # torch itself would wait for ten minutes
    first = nodes_of(cluster, run)[0]
    assert (run.exit_code, run.failed_rank) == (1, ("agent", first, "1")), run.report()
    assert "RendezvousTimeoutError" in run.stderr
    wait_gone(cluster, number)
    assert run.processes() == {}


def test_two_jobs_on_the_same_nodes_at_once(cluster: Cluster, job):
    (one, first), (two, second) = job("wait"), job("wait")
    runs(one)
    runs(two)
    one.kill(r"python payload.py", RANK="1")
    one.wait_ended()
    assert one.failed_rank[0] == "1", one.report()
    assert not two.ended, two.report()
    assert len([line for line in two.processes().values() if "python payload.py" in line]) >= 4
    slurm(cluster, "scancel", second)
    wait_gone(cluster, first)
    wait_gone(cluster, second)
    assert (one.processes(), two.processes()) == ({}, {})


def test_cancelling_stops_all_ranks_and_blames_none(cluster: Cluster, job):
    run, number = job("wait")
    runs(run)
    slurm(cluster, "scancel", number)
    wait_gone(cluster, number)
    assert run.processes() == {}
    assert "failed_rank" not in run.status, run.report()
