"""Kill a submission with SIGKILL at each line of the satellite in turn, try again, and count the jobs.

Run as a program, because it forks: ``python submit_faults_driver.py MODE FOLDER FIRST STEP``. Prints a JSON summary.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

from dagster_slurm_components.hosts import satellite

_BECOME_SUBREAPER = (
    36  # prctl(2): orphans of the killed child become ours, so that their end can be waited for
)


def make_bundle() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {"job.sh": b'echo "$$" >>"$1"; echo done', "payload/x": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def submit(mode: str, folder: Path, number: int, window: float = 0) -> dict[str, Any]:
    jobs = folder / f"jobs{number}"
    argv = {
        "command": ["/bin/sh", "-c", 'echo $$ >>"$0"; echo $$', str(jobs)],
        "process": ["/bin/sh", "job.sh", str(jobs)],
    }
    params = {
        "run_dir": f"{folder}/runs/{number}",
        "workdir": str(folder),
        "token": f"t{number}",
        "mode": mode,
        "argv": argv[mode],
        "lookups": [["/bin/sh", "-c", 'if [ -e "$0" ]; then sed "s/$/|t/" "$0"; fi', str(jobs)]],
        "window": window,
    }
    return satellite.handle("submit", params, make_bundle())[0]


def killed_at(line: int, mode: str, folder: Path, number: int) -> bool:
    """Submit in a child that kills itself at the ``line``-th line it executes; return whether it got there."""
    child = os.fork()
    if child == 0:
        seen = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal seen
            if frame.f_code.co_filename != satellite.__file__:
                return None
            if event == "line":
                seen += 1
                if seen == line:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        submit(mode, folder, number)
        sys.settrace(None)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    reap()
    return os.WIFSIGNALED(status)


def reap() -> None:
    """Wait until all orphans have ended: what a kill left running may still submit."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> None:
    mode, folder, line, step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    ctypes.CDLL(None).prctl(_BECOME_SUBREAPER, 1, 0, 0, 0)
    outcomes: dict[str, int] = {}
    wrong = []
    while killed_at(line, mode, folder, line):
        reply = submit(mode, folder, line)
        reap()
        again = submit(mode, folder, line)
        jobs = (folder / f"jobs{line}").read_text().split()
        outcomes[reply["outcome"]] = outcomes.get(reply["outcome"], 0) + 1
        told = reply["job_id"].partition(":")[0]
        if jobs != [told] or again != {"outcome": "known", "job_id": reply["job_id"]}:
            wrong.append({"line": line, "jobs": jobs, "reply": reply, "again": again})
        line += step
    print(json.dumps({"outcomes": outcomes, "wrong": wrong, "lines": line}))


if __name__ == "__main__":
    main()
