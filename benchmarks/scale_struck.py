"""What becomes of many waiting jobs when the process of their run is killed, and when their run is terminated.

``JOBS`` (200) scripts wait in the queue of a real Slurm, below one process. It is killed with -9, and Dagster's run
monitoring has another go on with the run; that one is killed, too, and the run re-executed: how long until each has
taken up all jobs, from its start. At the end each job has run once. Then as many jobs wait for a run that is
terminated: how long until none is in the queue, and until the run is over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import dagster as dg
from _lab import Lab, lab
from _queries import large_nodes
from _scaling import PATIENCE, Worker, start, stopped_partitions, write_project

LAUNCHER = Path(__file__).parents[1] / "tests" / "ownership"
JOBS = int(os.environ.get("JOBS", "200"))
LIMITS = {"resumed_s": 15.0, "re_executed_s": 15.0, "gone_s": 20.0, "duplicates": 0, "lost": 0}
CORES = 640
INSTANCE = """
telemetry: {enabled: false}
run_launcher: {module: launcher, class: ResumingRunLauncher}
run_monitoring: {enabled: true, max_resume_run_attempts: 1}
"""
SUBMITTED, TAKEN_UP = " submitted on ", " taken up again on "
CONFIG = {"kind": "threads", "config": {}}


def kill(worker: Worker) -> None:
    """End a run's process as the kernel does when memory is short."""
    worker.process.kill()
    worker.process.wait(PATIENCE)


def newest(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Return the run that was begun last."""
    (run,) = instance.get_runs(limit=1)
    return run


def queued(lab: Lab) -> int:
    """Return how many jobs wait or run."""
    return len(lab.cluster.run(["squeue", "-h", "-o", "%i"]).stdout.split())


def killed(lab: Lab, instance: dg.DagsterInstance) -> dict[str, object]:
    """Kill a run's process twice; return when the next had all jobs, and whether each job ran once."""
    trace = lab.project / "trace"
    write_project(lab.project, JOBS, f"echo $SLURM_JOB_NAME >>{trace}\n")
    with stopped_partitions(lab):
        worker = start(lab, "killed", **CONFIG)
        worker.wait_for(SUBMITTED, JOBS)
        kill(worker)
        worker = start(lab, "resumed", resume=newest(instance).run_id, **CONFIG)
        resumed_first, resumed = (worker.wait_for(TAKEN_UP, count) for count in (1, JOBS))
        kill(worker)
        run = newest(instance)
        instance.report_run_failed(run)
        worker = start(lab, "executed", parent=run.run_id, **CONFIG)
        executed_first, executed = (worker.wait_for(TAKEN_UP, count) for count in (1, JOBS))
        waiting = queued(lab)
    succeeded = worker.process.wait(PATIENCE) == 0
    ran = trace.read_text().split()
    return {
        "jobs": JOBS,
        "success": succeeded,
        "resumed_first_s": round(resumed_first, 1),
        "resumed_s": round(resumed, 1),
        "re_executed_first_s": round(executed_first, 1),
        "re_executed_s": round(executed, 1),
        "duplicates": max(waiting, len(ran)) - JOBS,
        "lost": JOBS - len(set(ran)),
    }


def terminated(lab: Lab, instance: dg.DagsterInstance) -> dict[str, object]:
    """Terminate a run as Dagster does; return when its jobs were gone, and when it was over."""
    with stopped_partitions(lab):
        worker = start(lab, "terminated", **CONFIG)
        worker.wait_for(SUBMITTED, JOBS)
        began = time.monotonic()
        instance.report_run_canceling(newest(instance))
        worker.process.send_signal(signal.SIGINT)
        while queued(lab) and time.monotonic() - began < PATIENCE:
            time.sleep(0.2)
        gone = time.monotonic() - began
        worker.process.wait(PATIENCE)
        over = time.monotonic() - began
    status = newest(instance).status.value
    return {"gone_s": round(gone, 1), "over_s": round(over, 1), "status": status}


def main() -> None:
    """Measure and print."""
    os.environ["PYTHONPATH"] = f"{LAUNCHER}:{os.environ.get('PYTHONPATH', '')}"
    sys.path.insert(0, str(LAUNCHER))
    with large_nodes(CORES), lab() as made:
        Path(os.environ["DAGSTER_HOME"], "dagster.yaml").write_text(INSTANCE)
        with dg.DagsterInstance.get() as instance:
            found = {**killed(made, instance), **terminated(made, instance)}
    holds = found["success"] and found["status"] == "CANCELED"
    holds = holds and all(float(str(found[name])) <= limit for name, limit in LIMITS.items())
    print(json.dumps({"benchmark": "scale_struck", **found, "limits": LIMITS, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
