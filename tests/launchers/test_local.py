"""All launchers without Slurm: the same plan on a laptop."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from launchers.harness import Run, listening, prepare, run_here, start_here
from launchers.payloads import RAY_SPREAD, TORCH_SUM
from waiting import PATIENCE

from dagster_slurm_components.spec.launchers import BashLauncher, RayLauncher, SrunLauncher, TorchrunLauncher
from dagster_slurm_components.spec.resources import Resources

RANKS = """
import os, sys, time
rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
print("rank", rank, "of", size, "args", sys.argv[1:], flush=True)
if "fail" in sys.argv and rank == size - 1:
    sys.exit(7)
if "fail" in sys.argv or "wait" in sys.argv:
    time.sleep(600)
"""

HOSTILE = ["a b", "a'b\"c", "a\nb", "$(exit 9)", "; exit 9", "ünïcode", "--", "", "-x", "*"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run directory whose name trips over careless quoting."""
    return tmp_path / "run 'a' $(b) ü"


def nothing_is_left(run: Run) -> None:
    assert run.processes() == {}


@pytest.mark.parametrize("launcher", [BashLauncher(), SrunLauncher()], ids=["bash", "srun"])
def test_arguments_reach_the_payload_as_they_were_written(
    folder: Path, launcher: BashLauncher | SrunLauncher
):
    payload = "import os, sys\nopen(os.environ['DAGSTER_SLURM_RUN_DIR'] + '/got', 'w').write('|'.join(sys.argv[1:]))"
    run = run_here(prepare(folder, launcher, payload, args=HOSTILE))
    assert run.exit_code == 0, run.report()
    assert (folder / "got").read_text() == "|".join(HOSTILE)


def test_a_command_runs_without_a_payload_file(folder: Path):
    run = run_here(prepare(folder, SrunLauncher(), ["printf", "%s\\n", "a b"]))
    assert (run.exit_code, run.stdout) == (0, "a b\n"), run.report()


def test_srun_starts_one_process_alone(folder: Path):
    run = run_here(prepare(folder, SrunLauncher(), RANKS, resources=Resources(ntasks=64)))
    assert (run.exit_code, run.stdout) == (0, "rank 0 of 1 args []\n"), run.report()
    nothing_is_left(run)


def test_srun_can_start_several_processes(folder: Path):
    run = run_here(prepare(folder, SrunLauncher(local_tasks=3), RANKS))
    assert run.exit_code == 0, run.report()
    assert run.stdout == "rank 0 of 3 args []\n"
    assert run.read("ranks/2.out") == "rank 2 of 3 args []\n"


def test_a_rank_that_fails_ends_the_others(folder: Path):
    run = run_here(prepare(folder, SrunLauncher(local_tasks=3), RANKS, args=["fail"]))
    assert run.exit_code == 7, run.report()
    who, node, code = run.status["failed_rank"].split(" ")
    assert (who, node, code) == ("2", run.status["host"], "7")
    assert f"the job failed because rank 2 on {node} ended with exit code 7" in run.stderr
    nothing_is_left(run)


def test_a_cancelled_job_stops_all_ranks_and_blames_none(folder: Path):
    run = prepare(folder, SrunLauncher(local_tasks=3), RANKS, args=["wait"])
    process = start_here(run)
    run.wait_for("rank 0")
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    assert run.exit_code == 128 + signal.SIGTERM, run.report()
    assert "failed_rank" not in run.status
    nothing_is_left(run)


@pytest.mark.slow
def test_torchrun_on_a_laptop(folder: Path, torch_venv: Path):
    launcher = TorchrunLauncher(nproc_per_node=2)
    run = run_here(
        prepare(folder, launcher, TORCH_SUM, args=["sum", "--signals"], prefix=torch_venv), timeout=PATIENCE
    )
    assert run.exit_code == 0, run.report()
    assert "rank 0 of 2 sum 1 pipes True" in run.stdout
    assert "rank 1 of 2 sum 1 pipes False" in run.read("ranks/1.out")
    nothing_is_left(run)


@pytest.mark.slow
def test_torchrun_starts_all_ranks_again_when_that_is_asked_for(folder: Path, torch_venv: Path):
    launcher = TorchrunLauncher(nproc_per_node=2, max_restarts=1)
    run = run_here(prepare(folder, launcher, TORCH_SUM, args=["once"], prefix=torch_venv), timeout=PATIENCE)
    assert run.exit_code == 0, run.report()
    assert "rank 1 on" in run.stderr
    assert "ended with exit code 7" in run.stderr
    assert "rank 0 of 2 sum 1" in run.stdout
    assert "failed_rank" not in run.status


@pytest.mark.slow
def test_ray_on_a_laptop(folder: Path, ray_venv: Path, tmp_path: Path):
    launcher = RayLauncher(dashboard=False)
    resources = Resources(cpus_per_task=2)
    run = prepare(folder, launcher, RAY_SPREAD, args=["spread"], prefix=ray_venv, resources=resources)
    run_here(run, timeout=PATIENCE)
    assert run.exit_code == 0, run.report()
    assert "CPUs 2" in run.stdout
    assert "ray.token" in {path.name for path in folder.iterdir()}
    assert (folder / "ray.token").stat().st_mode & 0o777 == 0o600
    nothing_is_left(run)


@pytest.mark.slow
def test_ray_under_uv_run_listens_on_loopback(folder: Path, ray_venv: Path):
    """As `uv run dg launch` starts it: Ray finds `uv run` among its parents."""
    launcher = RayLauncher(dashboard=False)
    run = prepare(folder, launcher, RAY_SPREAD, args=["wait"], prefix=ray_venv)
    uv_run = [
        str(Path(sys.executable).with_name("uv")),
        "run",
        "--no-project",
        "--no-config",
        "--offline",
        "--",
    ]
    process = start_here(run, under=uv_run)
    try:
        run.wait_for("tasks ran on", timeout=PATIENCE)
        assert listening(run.processes()) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    finally:
        process.terminate()
        process.wait(PATIENCE)
    nothing_is_left(run)


@pytest.fixture
def busy_ray(tmp_path: Path) -> dict[str, str]:
    """A stand-in for Ray that fails, twice, as the real one does on a machine that is far too busy."""
    scripts = tmp_path / "ray" / "scripts"
    scripts.mkdir(parents=True)
    (tmp_path / "ray" / "__init__.py").write_text(
        "import pathlib, socket\n"
        "up = pathlib.Path(__file__).with_name('up')\n"
        "def is_initialized():\n    return up.exists()\n\n\n"
        "def init(**options):\n    raise ConnectionError('nobody there')\n\n\n"
        "def nodes():\n    return [{'NodeName': socket.gethostname(), 'Alive': True}]\n"
    )
    (scripts / "__init__.py").touch()
    (scripts / "scripts.py").write_text(
        "import pathlib, time, ray\n"
        "tries = pathlib.Path(__file__).with_name('tries')\n"
        "tries.write_text(tries.read_text() + '.' if tries.exists() else '.')\n"
        "if len(tries.read_text()) < 3:\n"
        "    raise Exception('The current node timed out during startup.')\n"
        "print('Ray runtime started.', flush=True)\n"
        "ray.up.touch()\n"
        "time.sleep(600)\n"
    )
    return {"PYTHONPATH": str(tmp_path)}


def test_ray_that_needs_too_long_is_started_again(folder: Path, busy_ray: dict[str, str]):
    run = run_here(prepare(folder, RayLauncher(), "print('ran')", env=busy_ray))
    assert (run.exit_code, run.stdout) == (0, "ran\n"), run.report()
    assert run.stderr.count("is tried again: Exception: The current node timed out during startup.") == 2
    nothing_is_left(run)


def test_ray_that_does_not_start_tells_why(folder: Path, busy_ray: dict[str, str]):
    (Path(busy_ray["PYTHONPATH"]) / "ray" / "scripts" / "scripts.py").write_text(
        "raise Exception('no such option')\n"
    )
    run = run_here(prepare(folder, RayLauncher(), "print('never')", env=busy_ray))
    assert run.exit_code == 1, run.report()
    assert run.failed_rank[0] == "head"
    assert "ended with exit code 1: Exception: no such option" in run.stderr
    nothing_is_left(run)
