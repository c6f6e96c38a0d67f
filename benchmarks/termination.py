"""How soon a job is gone from Slurm, and its run over, after a person terminates the run in Dagster's UI.

Each run is launched and terminated through the webserver of a real ``dg dev``, as the UI does it; its job sleeps, or
sleeps and ignores TERM, which Slurm answers with KILL after its ``KillWait`` (5 s here).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

from _lab import Lab, lab

from dagster_slurm_components.jobs.lease import LEDGER, parse_ledger

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lifecycle.dev import Dev
from project_fixture import make_project
from waiting import eventually

ROUNDS = 5
LIMIT_S = 10.0
PAYLOADS = {
    "sleeps": "echo begun; exec sleep 600\n",
    "ignores_term": "trap '' TERM; echo begun; while :; do sleep 1; done\n",
}


def running(dev: Dev, run_id: str) -> str:
    """Wait until a run's payload has begun; return its job."""

    def job() -> str | None:
        launches = dev.launches(run_id)
        folder = Path(launches[-1].run_dir) if launches else None
        if folder is None or "begun" not in _text(folder / "stdout.log"):
            return None
        job_id: str | None = parse_ledger(_text(folder / LEDGER).encode()).job_id
        return job_id

    return str(eventually(job, f"the job of run {run_id} runs"))


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def terminate(setting: Lab, dev: Dev, payload: str) -> tuple[float, float]:
    """Terminate a run of a payload; return the seconds until its job was gone, and until the run was over."""
    run_id = dev.launch(payload)
    job = running(dev, run_id)
    began = time.monotonic()
    dev.terminate(run_id)
    state = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"]
    eventually(lambda: setting.cluster.run(state).stdout.strip() == "CANCELLED", f"job {job} is cancelled")
    gone = time.monotonic() - began
    eventually(lambda: dev.status(run_id).value == "CANCELED", f"run {run_id} is cancelled")
    return gone, time.monotonic() - began


def main() -> None:
    figures: dict[str, float] = {}
    with lab() as setting:
        project = make_project(setting.project / "location")
        project.staging(setting.cluster)
        scripts = "scripts:\n"
        for name, text in PAYLOADS.items():
            project.write(f"{name}.sh", text)
            scripts += f"  - {{payload: {name}.sh, assets: [{{key: {name}}}]}}\n"
        project.scripts(scripts)
        with Dev.running(project, "staging") as dev:
            for name in PAYLOADS:
                found = [terminate(setting, dev, name) for _ in range(ROUNDS)]
                figures[f"{name}_job_gone_s"] = statistics.median(gone for gone, _ in found)
                figures[f"{name}_job_gone_max_s"] = max(gone for gone, _ in found)
                figures[f"{name}_run_over_s"] = statistics.median(over for _, over in found)
    met = all(value <= LIMIT_S for name, value in figures.items() if "gone" in name)
    rounded = {name: round(value, 2) for name, value in figures.items()}
    print(
        json.dumps({"benchmark": "termination", **rounded, "limit_s": LIMIT_S, "met": met, "rounds": ROUNDS})
    )


if __name__ == "__main__":
    main()
