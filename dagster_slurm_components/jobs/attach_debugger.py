"""Lets debugpy into the Python of a payload on this node, and prints as JSON where it listens, or what is missing.

It is sent as it is, and run by the payload's own Python: ``attach_debugger.py RUN_DIR RANK PID``; RANK and PID may be
empty.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def pythons(run_dir: str, rank: str) -> "dict[int, str]":
    """Return the command of each Python of the payload that no other one has started, by its id.

    Where some are ranks, as under a payload's own `torchrun`, those are meant and not the agent that has started them.
    """
    found, ranks, node = {}, set(), os.environ.get("SLURMD_NODENAME")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "environ").read_text("utf-8", "replace")
            command = (folder / "cmdline").read_text("utf-8", "replace").replace("\0", " ").strip()
            parent = int((folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            program = (folder / "exe").resolve().name
        except OSError:  # it has ended, or is another user's
            continue
        env = dict(pair.partition("=")[::2] for pair in told.split("\0"))
        ours = any(f"{run_dir}/{part}" in command for part in ("launch", "environment/", "sampler/"))
        ours = ours or "/debugpy/adapter" in command  # of a debugger that got in before
        if env.get("DAGSTER_SLURM_RUN_DIR") != run_dir or "DAGSTER_SLURM_INTO" in env or ours:
            continue
        if rank not in ("", env.get("RANK", env.get("SLURM_PROCID"))) or env.get("SLURMD_NODENAME") != node:
            continue
        if program.startswith("python"):
            found[int(folder.name)] = parent, command
            ranks |= {int(folder.name)} if "RANK" in env else set()
    found = {pid: each for pid, each in found.items() if pid in ranks or not ranks}
    return {pid: command for pid, (parent, command) in found.items() if parent not in found}


def free(port: int) -> "int | None":
    """Return a port that nobody listens on, this one or with 0 any; nothing where somebody does."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return None
        return int(tried.getsockname()[1])


def attach(run_dir: str, rank: str, pid: str) -> "dict[str, object]":
    """Return the port, or the error and what helps."""
    there = pythons(run_dir, rank)
    if pid not in map(str, there) and (pid or len(there) != 1):
        listed = "; ".join(f"{each}: {command}" for each, command in sorted(there.items())) or "none"
        error = f"which Python of the payload is meant? There are: {listed}"
        return {"error": error, "hint": "Name a process by --pid, or a rank by --rank."}
    pid = pid or str(next(iter(there)))
    kept = Path(run_dir, "into", f"debugger.{os.uname().nodename}.{pid}")
    if kept.exists() and free(int(kept.read_text())) is None:
        return {"port": int(kept.read_text())}
    port = free(0) or 0
    command = [sys.executable, "-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--pid", pid]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode == 0 and free(port) is None:
        kept.write_text(str(port))
        return {"port": port}
    said = done.stdout.decode("utf-8", "replace").strip().rpartition("\n")[2][-500:]
    lacks = "No module named debugpy" in said.replace("'", "")
    hint = "debugpy needs `gdb` on the node, and leave to trace there."
    hint = "Add `debugpy` to the payload's environment." if lacks else hint
    return {"error": f"debugpy does not get in: {said or 'it says nothing'}", "hint": hint}


if __name__ == "__main__":
    # The working folder is the payload's; it may lie on the node.
    sys.stdout.write(json.dumps(dict(attach(*sys.argv[1:4]), folder=os.getcwd())) + "\n")
