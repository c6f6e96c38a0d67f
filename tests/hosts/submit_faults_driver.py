"""Kill a submission with SIGKILL at each line of the satellite in turn, try again, and count the jobs.

Run as a program, because it forks: ``python submit_faults_driver.py MODE FOLDER FIRST STEP``. Prints a JSON summary.
``benchmarks/faults.py`` kills whole submissions, with Slurm's faults around them, at random.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

from _killing import adopt_orphans, killed_at, reap

from dagster_slurm_components.hosts import satellite
from dagster_slurm_components.hosts.satellite.operations import handle

FILES = {str(path) for path in Path(satellite.__file__).parent.glob("*.py")}


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
    return handle("submit", params, make_bundle())[0]


def main() -> None:
    mode, folder, line, step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    adopt_orphans()
    outcomes: dict[str, int] = {}
    wrong = []
    while killed_at(line, partial(submit, mode, folder, line), FILES):
        reap()
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
