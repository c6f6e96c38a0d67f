"""job.sh as it is shipped: its record, its signals, its environment. Runs in any bash, with a plain process."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from outputs_fixture import RunDirectory
from waiting import PATIENCE, eventually

from dagster_slurm_components.environments.base import Activation, ActivationStep
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.jobs.status import StatusRecord, parse_status
from dagster_slurm_components.spec.outputs import Output
from slurm_testcluster.process import identify

FOLDERS = ["plain", "a b", "it's", 'say "hi"', "$(id)", "two\nlines", "ünï;cödé"]


def make(
    folder: Path,
    payload: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    steps: Sequence[ActivationStep] = (),
) -> Path:
    (folder / "payload").mkdir(parents=True)
    (folder / "job.sh").write_text(shipped("jobs/shell/job.sh"))
    (folder / "launch.sh").write_text(shipped("launchers/shell/launch_bash.sh"))
    (folder / "activate.sh").write_text(shipped("environments/shell/activate.sh"))
    (folder / "activate.args").write_bytes(Activation(tuple(steps)).arguments())
    (folder / "launch.args").write_bytes(b"".join(word.encode() + b"\0" for word in ("--", *payload)))
    (folder / "job.env").write_text("".join(f"export {k}={shlex.quote(v)}\n" for k, v in (env or {}).items()))
    return folder


def start(folder: Path, **extra: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.Popen(
        ["bash", str(folder / "job.sh"), str(folder)],
        env={**environment, **extra},
        stdin=subprocess.DEVNULL,
        stdout=(folder / "stdout.log").open("ab"),
        stderr=(folder / "stderr.log").open("ab"),
    )


def record(folder: Path) -> StatusRecord:
    found = parse_status((folder / "status").read_bytes())
    assert found is not None
    return found


def run(folder: Path, **extra: str) -> StatusRecord:
    code = start(folder, **extra).wait(PATIENCE)
    found = record(folder)
    assert found.exit_code == code
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_any_folder_and_any_value(tmp_path: Path, name: str) -> None:
    values = ["a b", "it's", "$(touch hacked)", "two\nlines", "", "-n", "☃"]
    code = "import os, sys; print(repr(sys.argv[1:])); print(repr(os.environ['V'])); print(os.getcwd())"
    folder = make(tmp_path / name, ["@python", "-c", code, *values], env={"V": "x'\n$(id)"})
    found = run(folder)
    assert found.exit_code == 0
    out = (folder / "stdout.log").read_text()
    assert out == f"{values!r}\n{chr(34)}x'\\n$(id){chr(34)}\n{folder / 'payload'}\n"
    assert not list(folder.rglob("hacked"))


def test_the_record_of_a_job(tmp_path: Path) -> None:
    before = time.time()
    found = run(make(tmp_path / "run", ["@python", "-c", "sum(range(3_000_000))"]))
    assert (found.exit_code, found.phase, found.restart, found.signals) == (0, "payload", 0, ())
    assert found.started is not None
    assert found.launched is not None
    assert found.ended is not None
    assert found.started <= found.launched <= found.ended
    assert before - 1 <= found.started <= time.time() + 1
    assert found.cpu_seconds is not None
    assert 0 < found.cpu_seconds < 60


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["no-such-program"], 127),
        (["sh", "-c", "exit 127"], 127),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 137),
    ],
)
def test_exit_codes_are_kept(tmp_path: Path, payload: list[str], code: int) -> None:
    assert run(make(tmp_path / "run", payload)).exit_code == code


def test_exit_code_127_after_a_signal_is_no_success(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "pathlib.Path('ready').touch()\ntime.sleep(1)\nsys.exit(127)\n"
    )
    folder = make(tmp_path / "run", ["@python", "-c", code])
    job = start(folder)
    wait_for(folder / "payload" / "ready")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE) == 127
    assert record(folder).exit_code == 127


def test_two_signals_at_once_do_not_hide_the_exit_code(tmp_path: Path) -> None:
    # bash 5.2 may run its trap for one of them and then tell 143, or -1, for a child that goes on.
    code = "trap '' TERM; touch ready; sleep 0.1; exit 7"
    for attempt in range(20):
        folder = make(tmp_path / str(attempt), ["bash", "-c", code])
        job = start(folder)
        wait_for(folder / "payload" / "ready")
        job.send_signal(signal.SIGTERM)
        time.sleep(attempt / 10_000)
        job.send_signal(signal.SIGTERM)
        assert job.wait(PATIENCE) == 7
        assert record(folder).exit_code == 7


@pytest.mark.parametrize("name", ["TERM", "USR1", "USR2", "INT"])
def test_signals_reach_the_payload_and_its_exit_code_is_kept(tmp_path: Path, name: str) -> None:
    code = (
        "import signal, sys, time, pathlib\n"
        f"signal.signal(signal.SIG{name}, lambda *_: sys.exit(5))\n"
        "pathlib.Path('ready').touch()\ntime.sleep(30)\n"
    )
    folder = make(tmp_path / "run", ["@python", "-c", code])
    job = start(folder)
    wait_for(folder / "payload" / "ready")
    job.send_signal(getattr(signal, f"SIG{name}"))
    assert job.wait(PATIENCE) == 5
    assert record(folder).signals == (name,)


def descendants(pid: int) -> list[int]:
    """Return the processes below one, by Linux's /proc."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    below = [child for child, parent in parents.items() if parent == pid]
    return below + [deeper for child in below for deeper in descendants(child)]


@pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
def test_a_payload_that_slurm_s_term_ends_leaves_its_exit_code(tmp_path: Path) -> None:
    """`exit=-1` stood in every second record: bash 5.2 forgets a child that dies while a trap runs."""
    jobs = []
    for number in range(8):
        folder = make(tmp_path / str(number), ["bash", "-c", "touch ready; while :; do sleep 0.5; done"])
        jobs.append((folder, start(folder, SLURM_JOB_ID="7")))
    for folder, job in jobs:
        wait_for(folder / "payload" / "ready")
        for pid in (job.pid, *descendants(job.pid)):  # as slurmstepd does
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    assert [job.wait(PATIENCE) for _, job in jobs] == [143] * 8
    assert [record(folder).exit_code for folder, _ in jobs] == [143] * 8


def test_f46_what_the_payload_leaves_behind_is_ended(tmp_path: Path) -> None:
    code = "sleep 300 & echo $! > child; exit 0"
    folder = make(tmp_path / "run", ["bash", "-c", code])
    assert run(folder).exit_code == 0
    child = int((folder / "payload" / "child").read_text())
    deadline = time.monotonic() + PATIENCE
    while identify(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_restart_sets_old_messages_aside(tmp_path: Path) -> None:
    # Also of a job that has ended well: its node was not heard of just then.
    folder = make(tmp_path / "run", ["sh", "-c", '[ "$TOKEN" = secret ]'], env={"TOKEN": "secret"})
    messages = folder / "messages.jsonl"
    messages.write_text("old\n")
    run(folder)
    old = messages.stat().st_ino
    found = run(folder, SLURM_RESTART_COUNT="1")
    assert (found.restart, found.exit_code) == (1, 0)
    assert (folder / "messages.jsonl.0").read_text() == "old\n"
    # Another file: an NFS client that still has the old one's handle is told that it is stale, and looks again.
    assert (messages.read_text(), messages.stat().st_ino != old) == ("", True)
    assert (folder / "messages.jsonl.0").stat().st_ino != old


def test_an_environment_that_fails_keeps_the_payload_from_starting(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", ["touch", "started"], steps=[ActivationStep("prefix", ("/no such env",))])
    found = run(folder)
    assert (found.exit_code, found.phase) == (96, "environment")
    assert "the environment /no such env does not exist" in (folder / "stderr.log").read_text()
    assert not (folder / "payload" / "started").exists()


def test_modules_without_a_module_system_say_so(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", ["true"], steps=[ActivationStep("modules", ("gcc/99 it's",))])
    found = run(folder, BASH_ENV="/dev/null")
    assert found.exit_code == 96
    assert "gcc/99 it's" in (folder / "stderr.log").read_text()


def test_the_python_of_the_environment_runs_the_payload(tmp_path: Path) -> None:
    step = ActivationStep("python", (sys.executable,))
    folder = make(tmp_path / "run", ["@python", "-c", "import sys; print(sys.executable)"], steps=[step])
    assert run(folder).exit_code == 0
    assert (folder / "stdout.log").read_text().strip() == sys.executable


def test_users_values_win_over_the_environments(tmp_path: Path) -> None:
    step = ActivationStep("setup", ("setup.sh", "export ..."))
    folder = make(tmp_path / "run", ["sh", "-c", "echo $CHOSEN $OTHER"], env={"CHOSEN": "user"}, steps=[step])
    (folder / "setup.sh").write_text("export CHOSEN=site OTHER=site\n")
    run(folder)
    assert (folder / "stdout.log").read_text() == "user site\n"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_start_that_slurm_gave_up_leaves_the_record_to_the_newer_one(tmp_path: Path) -> None:
    """A node that is not heard of goes on working, while the job begins anew on another one."""
    folder = make(
        tmp_path / "run", ["bash", "-c", "touch begun; until [ -e go ]; do sleep 0.02; done; exit 3"]
    )
    job = start(folder)
    while not (folder / "payload" / "begun").exists():
        time.sleep(0.02)
    with (folder / "status").open("a") as status:
        status.write("restart=1\nstarted=7\n")
    (folder / "payload" / "go").touch()
    assert job.wait(PATIENCE) == 3
    assert record(folder).exit_code is None
    assert record(folder).restart == 1


def with_outputs(folder: Path, payload: Sequence[str], **outputs: str) -> Path:
    make(folder, payload)
    run_directory = RunDirectory(folder)
    run_directory.declare({name: Output(path=path) for name, path in outputs.items()})
    return folder


def test_outputs_are_looked_for_after_a_payload_that_did_its_work(tmp_path: Path) -> None:
    folder = with_outputs(tmp_path / "a b", ["sh", "-c", "echo x >made"], made="made")
    found = run(folder)
    assert (found.exit_code, found.get("outputs")) == (0, "made")
    (made,) = RunDirectory(folder).made()
    assert (made.path, made.bytes) == (f"{folder}/payload/made", 2)


def test_a_payload_that_failed_has_no_outputs(tmp_path: Path) -> None:
    folder = with_outputs(tmp_path / "run", ["sh", "-c", "echo x >made; exit 3"], made="made")
    found = run(folder)
    assert (found.exit_code, found.get("outputs")) == (3, None)
    assert not (folder / "made.json").exists()


def test_a_missing_output_is_the_end_of_a_job(tmp_path: Path) -> None:
    folder = with_outputs(tmp_path / "run", ["true"], made="made")
    found = run(folder)
    assert (found.exit_code, found.get("outputs")) == (94, "failed")


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("USR1", 0)])
def test_a_signal_while_outputs_are_looked_for(tmp_path: Path, name: str, code: int) -> None:
    folder = with_outputs(tmp_path / "run", ["true"], made="made")
    collecting = (
        'touch "$PWD/begun"\nfor _ in $(seq 300); do [ -e done ] && exit 0; sleep 0.1; done\nexit 1\n'
    )
    (folder / "collector/collect.sh").write_text(collecting)
    job = start(folder)
    eventually((folder / "begun").exists, "it has begun")
    job.send_signal(getattr(signal, f"SIG{name}"))
    eventually(lambda: f"signal={name}" in (folder / "status").read_text(), "the job knows of it")
    if name == "USR1":
        (folder / "done").touch()
    assert job.wait(PATIENCE) == code
    assert record(folder).get("outputs") == ("made" if name == "USR1" else "failed")
