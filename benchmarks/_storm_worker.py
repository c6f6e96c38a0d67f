"""Makes run workers by forking: ``python _storm_worker.py``; one JSON object a line in, one a line out.

In: ``{"tag": ..., "round": number, "parent": run id or null, "all_steps": bool, "multiprocess": bool}``.
Out: ``{"tag": ..., "pid": ...}``.
Each worker is a process of its own, in its own session, and may be killed like one that Dagster started; only the
seconds of Python's imports are saved. ``STORM_JOB`` names the file with the job.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._utils.interrupts import capture_interrupts  # what Dagster's own run workers use (1.13)

sys.path.insert(0, str(Path(os.environ["STORM_JOB"]).parent))

import storm_job  # type: ignore[import-not-found]
from _storm_launcher import PID

TAG = "storm"


def work(order: dict[str, Any]) -> None:
    """Execute a run of one script, or re-execute one."""
    os.setsid()
    os.environ["STORM_ROUND"] = str(order["round"])
    log = os.open(os.environ["STORM_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config: dict[str, Any] = {"in_process": {}}
    threads = not order["multiprocess"] and os.environ.get("EXECUTOR") == "slurm"
    if threads:
        config = {"max_concurrent": 1}
    elif order["multiprocess"]:
        config = {"multiprocess": {"start_method": {"forkserver": {"preload_modules": ["storm_job"]}}}}
    with dg.DagsterInstance.get() as instance, capture_interrupts():
        again = None
        if order["parent"]:
            made = dg.ReexecutionOptions
            again = (
                made(order["parent"]) if order["all_steps"] else made.from_failure(order["parent"], instance)
            )
        dg.execute_job(
            dg.reconstructable(storm_job.threads if threads else storm_job.job),
            instance=instance,
            run_config={"execution": {"config": config}},
            tags={TAG: order["tag"], PID: str(os.getpid())},
            reexecution_options=again,
            raise_on_error=False,
        )


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            code = 1
            try:
                work(order)
                code = 0
            finally:
                os._exit(code)
        print(json.dumps({"tag": order["tag"], "pid": child}), flush=True)


if __name__ == "__main__":
    main()
