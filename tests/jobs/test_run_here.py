"""Commands on this machine that end when nobody wants them any more, with all that they have started."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from threading import Event

import pytest
from waiting import PATIENCE, eventually

from dagster_slurm_components.jobs.run_here import Ran, run_here


def shell(script: str, folder: Path, timeout: float = PATIENCE, stop: Event | None = None) -> Ran:
    return run_here(["sh", "-c", script], folder, timeout, stop or Event())


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_how_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of Dagster's process")
    assert shell("echo out; echo err >&2; pwd", tmp_path) == Ran("", f"out\nerr\n{tmp_path}")
    assert shell('printf %s "$SECRET"', tmp_path).output == "of Dagster's process"
    assert shell("exit 3", tmp_path) == Ran("ended with 3", "")
    assert shell("kill -9 $$", tmp_path) == Ran("ended with -9", "")
    assert shell("cat", tmp_path) == Ran("", ""), "it has no input"
    assert run_here(["no-such-program"], tmp_path, 1, Event()).wrong.startswith(
        "can't be started: No such file"
    )
    assert run_here(["true"], tmp_path / "gone", 1, Event()).wrong.startswith("can't be started: ")
    assert run_here(["echo", "a\0b"], tmp_path, 1, Event()).wrong.startswith("can't be started: ")
    assert run_here(["echo", *["x" * 100_000] * 100], tmp_path, 1, Event()).wrong.startswith(
        "can't be started: "
    )


def test_programs_beside_this_python_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert run_here(["only-here"], tmp_path, PATIENCE, Event()) == Ran("", "found")


def test_the_end_of_much_output_is_kept(tmp_path: Path) -> None:
    told = shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", tmp_path).output
    assert len(told) <= 4096
    assert told.endswith("line 19999")
    assert "\x1b" not in shell("printf '\\033[31mred'", tmp_path).output


def test_what_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    assert shell(f"exec >&- 2>&-; sleep 0.5; touch {tmp_path}/done; exit 4", tmp_path) == Ran(
        "ended with 4", ""
    )
    assert (tmp_path / "done").exists()


def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    began = time.monotonic()
    told = shell(f"sleep {10 * PATIENCE} & echo $!", tmp_path)
    assert time.monotonic() - began < PATIENCE
    assert told.wrong == ""
    eventually(lambda: gone(int(told.output)), "the process in the background has ended")


def test_it_ends_after_a_time_and_with_its_group(tmp_path: Path) -> None:
    told = shell(f"sleep {10 * PATIENCE} & echo $!; wait", tmp_path, timeout=0.5)
    assert told.wrong.startswith("had not ended after")
    eventually(lambda: gone(int(told.output)), "its child has ended")


def test_it_ends_when_nobody_wants_it(tmp_path: Path) -> None:
    stop, pid = Event(), tmp_path / "pid"
    found: list[Ran] = []
    script = f"echo $$ >{pid}.tmp; mv {pid}.tmp {pid}; sleep {10 * PATIENCE}; echo never"
    thread = threading.Thread(target=lambda: found.append(shell(script, tmp_path, 10 * PATIENCE, stop)))
    thread.start()
    eventually(pid.exists, "it has begun")
    stop.set()
    thread.join(PATIENCE)
    assert found == [Ran("was ended with its step", "")]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
