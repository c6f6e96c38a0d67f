"""`dg-slurm debug`: debugpy gets into a payload that runs, and is seen from here; what it lacks is told."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from into.conftest import Place, call, command
from waiting import PATIENCE

FAKE = """
# A debugpy that listens as the real one does once it is in another process, and greets as its protocol does.
import os, signal, socket, sys

listen, address, flag, pid = sys.argv[1:]
assert (listen, flag) == ("--listen", "--pid")
os.kill(int(pid), 0)
server = socket.create_server(("127.0.0.1", int(address.split(":")[1])))
if os.fork() == 0:
    os.setsid()
    signal.alarm(300)
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    while os.path.exists(f"/proc/{pid}"):
        server.settimeout(0.5)
        try:
            server.accept()[0].sendall(b"Content-Length: 2\\r\\n\\r\\n{}")
        except TimeoutError:
            pass
os._exit(0)
"""
REAL = importlib.util.find_spec("debugpy")


def module(place: Place, text: str) -> str:
    """Write a debugpy for the payload's environment; return the folder it is found in."""
    folder = place.project.root / "site" / "debugpy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(text)
    return str(folder.parent)


def real() -> str:
    if REAL is None or REAL.origin is None or shutil.which("gdb") is None:
        pytest.skip("debugpy and gdb are not here")
    with subprocess.Popen(["sleep", "600"]) as process:
        argv = ["gdb", "--nx", "--batch", "--pid", str(process.pid), "--eval-command", "detach"]
        tried = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        process.kill()
    if "ptrace: " in tried.stderr:
        pytest.skip(f"no debugger gets into another process here: {tried.stderr.splitlines()[-1]}")
    return str(Path(REAL.origin).parents[1])


def debugged(place: Place, found_in: str) -> None:
    """Connect to a payload's debugger, twice by two commands, and see the payload go on."""
    job = place.begun(place.submit(env={"PYTHONPATH": found_in}))
    for _ in range(2):  # the second finds the debugger that is there
        words = command("debug", job)
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        ) as process:
            try:
                assert process.stdout is not None
                lines = [process.stdout.readline()]
                while lines[-1] not in ("}\n", ""):
                    lines.append(process.stdout.readline())
                assert lines[-1], process.communicate(timeout=PATIENCE)
                (entry,) = json.loads("".join(lines))["configurations"]
                assert entry["pathMappings"][0]["remoteRoot"].endswith("/payload")
                with socket.create_connection(
                    (entry["connect"]["host"], entry["connect"]["port"]), 60
                ) as way:
                    assert way.recv(15) == b"Content-Length:"
            finally:
                process.kill()
    place.ended_well(job)


def test_on_this_machine(near: Place) -> None:
    debugged(near, module(near, FAKE))


def test_the_real_one_on_this_machine(near: Place) -> None:
    debugged(near, real())


@pytest.mark.slow
def test_in_a_job_behind_two_factors(far: Place) -> None:
    debugged(far, module(far, FAKE))
    assert far.one_login()


def test_what_is_missing_is_told(near: Place) -> None:
    folder = module(near, "raise ModuleNotFoundError(\"No module named 'debugpy'\")")
    job = near.begun(near.submit(env={"PYTHONPATH": folder}))
    told = call("debug", job, status=1).output
    assert "Add `debugpy` to the payload's environment." in told
    (near.project.root / "site" / "debugpy" / "__main__.py").write_text('raise SystemExit("gdb: not found")')
    told = call("debug", job, status=1).output
    assert "debugpy does not get in: gdb: not found" in told
    assert "debugpy needs `gdb` on the node" in told
    assert "it runs no Python there" not in told
    assert (
        "which Python of the payload is meant? There are: "
        in call("debug", job, "--pid", "1", status=1).output
    )
    near.ended_well(job)
