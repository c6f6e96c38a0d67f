"""Kill a submission, or a lease's change, with SIGKILL at each line of the satellite in turn, and try again.

Run as a program, because it forks: ``python submit_faults_driver.py MODE FOLDER FIRST STEP``. Prints a JSON summary.
The modes are those of a submission, and ``change``.
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
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest
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


OWNER = {"run_id": "r", "node": "n", "pid_namespace": "", "pid": 1, "start": "s"}
TAKER = {**OWNER, "run_id": "r2"}


def submit(mode: str, folder: Path, number: int, window: float = 0) -> dict[str, Any]:
    jobs = folder / f"jobs{number}"
    argv = {
        "command": ["/bin/sh", "-c", 'echo $$ >>"$0"; echo $$', str(jobs)],
        "process": ["/bin/sh", "job.sh", str(jobs)],
    }
    params = {
        "run_dir": f"{folder}/runs/{number}/0",
        "workdir": str(folder),
        "token": f"t{number}",
        "mode": mode,
        "argv": argv[mode],
        "lookups": [["/bin/sh", "-c", 'if [ -e "$0" ]; then sed "s/$/|t/" "$0"; fi', str(jobs)]],
        "window": window,
        "claim": LeaseRequest("d", "c", OWNER, {}),
    }
    return handle("submit", params, make_bundle())[0]


def submitted(mode: str, folder: Path, line: int) -> tuple[str, object]:
    """Make a submission that was killed once more; return its outcome, and what is wrong with it."""
    reply = submit(mode, folder, line)
    reap()
    again = submit(mode, folder, line)
    jobs = (folder / f"jobs{line}").read_text().split()
    told = reply["job_id"].partition(":")[0]
    ((run_dir, lease, ledger),) = handle("attempts", {"folder": f"{folder}/runs/{line}"})[0]["attempts"]
    right = (
        jobs == [told],
        again == {"outcome": "known", "job_id": reply["job_id"]},
        [lease[key] for key in ("epoch", "state", "owner")] == [1, "following", OWNER],
        f"job_id={reply['job_id']}\n" in ledger,
        [run_dir, lease, ledger] in handle("open_leases", {"workdir": str(folder)})[0]["attempts"],
    )
    return reply["outcome"], None if all(right) else {
        "jobs": jobs,
        "reply": reply,
        "again": again,
        "right": right,
    }


def change(folder: Path, number: int) -> dict[str, Any]:
    """Take a job over and say that it was cancelled."""
    params = {
        "run_dir": f"{folder}/runs/{number}/0",
        "workdir": str(folder),
        "epoch": 1,
        "owner": TAKER,
        "state": "cancelled",
        "outcome": "CANCELLED",
        "finished": 5.0,
    }
    return handle("change_lease", params)[0]


def changed(folder: Path, line: int) -> tuple[str, object]:
    """Make a change that was killed once more; return what is wrong with it."""
    first, again = change(folder, line), change(folder, line)
    lease = first["lease"]
    right = (
        first["changed"] and again["changed"],
        [lease[key] for key in ("epoch", "state", "owner")] == [2, "cancelled", TAKER],
        {**again["lease"], "renewed": 0} == {**lease, "renewed": 0},
        handle("open_leases", {"workdir": str(folder)})[0]["attempts"] == [],
        not (folder / "open" / f"t{line}").exists(),
    )
    return "changed", None if all(right) else {"first": first, "again": again, "right": right}


def main() -> None:
    mode, folder, line, step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    adopt_orphans()
    outcomes: dict[str, int] = {}
    wrong = []
    while True:
        if mode == "change":
            submit("command", folder, line)
        work = partial(change, folder, line) if mode == "change" else partial(submit, mode, folder, line)
        if not killed_at(line, work, FILES):
            break
        reap()
        outcome, fault = changed(folder, line) if mode == "change" else submitted(mode, folder, line)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        wrong += [{"line": line, "fault": fault}] if fault else []
        line += step
    print(json.dumps({"outcomes": outcomes, "wrong": wrong, "lines": line}))


if __name__ == "__main__":
    main()
