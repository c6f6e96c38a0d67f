"""Killed, crowded, out of room: real processes, the real uv, and what the next run finds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from package_fixture import make_project, make_wheel, put_uv_into
from waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("own_cache")

# One run of `provide` in a process of its own, with the satellite in another. KILL_AT: the number of the call to
# the host at which the process is killed: an even one before it is sent, an odd one somewhere within.
PROGRAM = """
import json, os, signal, sys, threading
from pathlib import Path
from package_fixture import uv_request
from dagster_slurm_components.hosts.client import (Satellite)
from dagster_slurm_components.hosts.remote import RemoteHost
from subprocess_dialer import SubprocessDialer
from dagster_slurm_components.environments import store
from dagster_slurm_components.environments.provide import provide
from dagster_slurm_components.environments.store import Store

store.PIECE = int(os.environ.get("PIECE", "1000000"))
store._AT_ONCE = int(os.environ.get("AT_ONCE", "8"))
project, workdir, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = 0

class Deadly(RemoteHost):
    def call(self, op, params=None, blob=b"", *, timeout=60.0):
        global calls
        calls += 1
        if calls == kill_at and calls % 2:
            threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().call(op, params, blob, timeout=timeout)

host = Deadly(SubprocessDialer())
provided = provide(uv_request(Path(project)), Store(Satellite(host), workdir, "staging"))
print(json.dumps({"state": provided.state, "sent": provided.sent, "folder": provided.folder, "calls": calls}))
host.close()
"""


def start(project: Path, workdir: Path, kill_at: int = 0, **env: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(project), str(workdir), str(kill_at)],
        env={**os.environ, "PYTHONPATH": path, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def assert_whole(folder: str, workdir: Path) -> None:
    verify = Path(__file__).parents[2] / "dagster_slurm_components/environments/job/verify_environment.py"
    python = f"{folder}/prefix/bin/python"
    done = subprocess.run(
        [python, "-I", verify, "full", f"{folder}/.ready", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    entries = [entry.name for entry in (workdir / "envs").iterdir() if not entry.name.startswith(".lock-")]
    assert entries == [Path(folder).name]
    assert list((workdir / "store" / "incoming").iterdir()) == []


def test_f49_eight_at_once_make_one_build(tmp_path: Path, index: Path):
    project, workdir = make_project(tmp_path / "study", index, "alpha==1.0", "beta"), tmp_path / "work"
    # Half of them on another machine, as far as this machine's own locks tell.
    other = tmp_path / "cache of the other machine"
    put_uv_into(other, tmp_path)
    machines = [{}, {"DAGSTER_SLURM_CACHE": str(other)}] * 4
    found = [finish(process) for process in [start(project, workdir, **machine) for machine in machines]]
    assert sorted(each["state"] for each in found) == ["built"] + ["ready"] * 7
    assert len({each["folder"] for each in found}) == 1
    assert sum(each["sent"] > 0 for each in found) <= 2  # one upload a machine
    assert_whole(found[0]["folder"], workdir)


def test_f49_killed_at_ten_moments_and_healed_each_time(tmp_path: Path, index: Path):
    """The uploader is killed at ever later calls: asking, sending, building. What was sent is not sent again."""
    make_wheel(index, "delta", "1.0", {f"{number}.bin": os.urandom(6000) for number in range(30)})
    project = make_project(tmp_path / "study", index, "alpha==1.0", "delta")
    # uv itself is there from another environment: its many pieces would be all the moments there are.
    workdir = tmp_path / "work"
    finish(start(make_project(tmp_path / "other", index, "beta"), workdir))
    (other,) = [entry for entry in (workdir / "envs").iterdir() if not entry.name.startswith(".")]
    # One piece after the other, so that a call's number says what was done before it.
    pieces = {"PIECE": "4096", "AT_ONCE": "1"}
    for moment in range(1, 11):
        process = start(project, workdir, moment, **pieces)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL, err
    found = finish(start(project, workdir, **pieces))
    whole = sum((index / f"{name}-py3-none-any.whl").stat().st_size for name in ("alpha-1.0", "delta-1.0"))
    assert 0 < found["sent"] <= whole - 2 * 4096
    (workdir / "envs" / other.name).rename(tmp_path / "aside")
    assert_whole(found["folder"], workdir)


def builders(workdir: Path) -> list[int]:
    """Return the processes of builders that work in this folder, and what they started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(workdir) in os.readlink(entry / "cwd"):
                found.append(int(entry.name))
    return found


def test_a_killed_build_leaves_nothing_that_counts(tmp_path: Path, index: Path):
    many = {f"module_{number}.py": b"x = 1\n" * 2000 for number in range(200)}
    make_wheel(index, "delta", "1.0", many)
    project, workdir = make_project(tmp_path / "study", index, "delta"), tmp_path / "work"
    process = start(project, workdir)
    deadline = time.monotonic() + PATIENCE
    while not (working := builders(workdir)):  # uv, in the folder of the build
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for pid in working:
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert "build_failed" in err or "ended with -9" in err
    assert not list((workdir / "envs").glob("[!.]*"))
    found = finish(start(project, workdir))
    assert found["sent"] == 0
    assert_whole(found["folder"], workdir)


def test_a_full_disk_leaves_no_half_environment_and_says_what_to_do(tmp_path: Path, index: Path):
    make_wheel(index, "delta", "1.0", {"big.bin": os.urandom(5_000_000)})
    project = make_project(tmp_path / "study", index, "delta")
    small = tmp_path / "small"
    small.mkdir()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # 45 MB hold uv and the wheel, but not its installed files as well.
    script = 'mount -t tmpfs -o size=45m tmpfs "$1" && shift && "$@"; code=$?; ls -A "$0" "$0/work/envs"; exit $code'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(small), str(small)]
    probe = subprocess.run([*argv, "true"], capture_output=True, text=True, check=False)
    if "denied" in probe.stderr or "not permitted" in probe.stderr:
        pytest.skip(f"no small file system can be mounted here: {probe.stderr.strip()}")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [*argv, sys.executable, str(program), str(project), str(small / "work"), "0"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no room for the environment" in done.stderr
    assert "dg-slurm env prune" in done.stderr
    left = done.stdout.partition("envs:\n")[2].split()
    assert [name for name in left if not name.startswith(".lock-")] == []


def test_a_build_goes_on_without_whoever_ordered_it(tmp_path: Path, index: Path):
    many = {f"module_{number}.py": b"x = 1\n" * 2000 for number in range(200)}
    make_wheel(index, "delta", "1.0", many)
    project, workdir = make_project(tmp_path / "study", index, "delta"), tmp_path / "work"
    process = start(project, workdir)
    deadline = time.monotonic() + PATIENCE
    while not builders(workdir):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    found = finish(start(project, workdir))
    assert (found["state"], found["sent"]) == ("ready", 0)
    assert_whole(found["folder"], workdir)
