"""job.sh puts itself back into the queue after a checkpoint, and only then. `scontrol` is a stand-in here."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import PATIENCE

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.jobs.status import parse_starts

PAYLOAD = """
import os, signal, sys, time
sys.path.insert(0, os.environ["HELPER"])
import payload
payload.listen()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(76))
open("ready", "w").close()
while not payload.asked():
    time.sleep(0.02)
if "write" in sys.argv:
    payload.save("state", b"7")
if "done" in sys.argv:
    sys.exit(0)
payload.leave()
"""


def make(folder: Path, words: list[str]) -> Path:
    """Write a run directory as the satellite would unpack it."""
    (folder / "payload").mkdir(parents=True)
    (folder / "job.sh").write_text(shipped("jobs/shell/job.sh"))
    (folder / "launch.sh").write_text(shipped("launchers/shell/launch_bash.sh"))
    (folder / "activate.sh").write_text(shipped("environments/shell/activate.sh"))
    (folder / "activate.args").write_bytes(Activation().arguments())
    (folder / "launch.args").write_bytes(b"".join(word.encode() + b"\0" for word in ("--", *words)))
    messages = shlex.quote(str(folder / "messages.jsonl"))
    (folder / "job.env").write_text(
        f"export HELPER={shlex.quote(HELPER)}\nexport DAGSTER_SLURM_MESSAGES={messages}\n"
    )
    return folder


HELPER = str(Path(__file__).parents[2] / "dagster_slurm_components")
PYTHON = (sys.executable, "-c", PAYLOAD)
BASH = """
. pipes.sh
pipes_listen
: >ready
until pipes_asked; do sleep 0.02; done
echo 7 | pipes_save state
pipes_leave
"""
R = """
source(file.path(Sys.getenv("DAGSTER_SLURM_LIB"), "pipes.R"))
pipes_listen()
file.create("ready")
while (!pipes_asked()) Sys.sleep(0.02)
pipes_save("state", 7)
pipes_leave()
"""


def run(
    tmp_path: Path,
    *words: str,
    program: tuple[str, ...] = PYTHON,
    number: int = signal.SIGUSR1,
    restart: int = 0,
    refused: bool = False,
) -> int:
    folder = make(tmp_path / "step" / "0", [*program, *words])
    shutil.copytree(Path(HELPER) / "jobs" / "lib", folder / "lib")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/asked"\nexit {int(refused)}\n')
    (tools / "scontrol").chmod(0o700)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment |= {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    if restart:
        environment["SLURM_RESTART_COUNT"] = str(restart)
    job = subprocess.Popen(["bash", str(folder / "job.sh"), str(folder), "2"], env=environment)
    deadline = time.monotonic() + PATIENCE
    while not (folder / "payload" / "ready").exists():
        assert time.monotonic() < deadline, "the payload did not begin"
        time.sleep(0.02)
    job.send_signal(number)
    return job.wait(PATIENCE)


def asked(tmp_path: Path) -> str:
    file = tmp_path / "asked"
    return file.read_text().strip() if file.exists() else ""


def test_a_checkpoint_leads_back_into_the_queue(tmp_path: Path) -> None:
    run(tmp_path, "write")
    assert asked(tmp_path) == "requeue 12"
    (start,) = parse_starts((tmp_path / "step" / "0" / "status").read_bytes())
    assert start.exit_code is None
    assert start.get("checkpointed") == "75"
    assert (tmp_path / "step" / "checkpoint" / "state").read_bytes() == b"7"


@pytest.mark.parametrize("program", [("bash", "-c", BASH), ("Rscript", "-e", R)], ids=["bash", "R"])
def test_the_same_in_other_languages(tmp_path: Path, program: tuple[str, ...]) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip(f"there is no {program[0]} on this machine")
    assert run(tmp_path, program=program) == 75
    assert asked(tmp_path) == "requeue 12"
    assert [file.name for file in (tmp_path / "step" / "checkpoint").iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("words", "number", "restart", "code"),
    [
        ((), signal.SIGUSR1, 0, 75),
        (("write", "done"), signal.SIGUSR1, 0, 0),
        (("write",), signal.SIGUSR1, 2, 75),
        (("write",), signal.SIGTERM, 0, 76),
    ],
    ids=["no checkpoint", "done", "often enough", "told to stop"],
)
def test_all_else_ends_the_job_with_its_own_code(
    tmp_path: Path, words: tuple[str, ...], number: int, restart: int, code: int
) -> None:
    assert run(tmp_path, *words, number=number, restart=restart) == code
    assert asked(tmp_path) == ""
    assert parse_starts((tmp_path / "step" / "0" / "status").read_bytes())[-1].exit_code == code


def test_a_refused_requeue_ends_the_job(tmp_path: Path) -> None:
    assert run(tmp_path, "write", refused=True) == 75
    (start,) = parse_starts((tmp_path / "step" / "0" / "status").read_bytes())
    assert start.exit_code == 75
    assert start.get("requeue") == "failed"
