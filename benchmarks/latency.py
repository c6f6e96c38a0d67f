"""What a step costs around its payload, over what Slurm itself takes for the same payload.

The payload sleeps 0.03 s and writes down when it began and ended. It runs as a bare ``sbatch`` on the cluster and as
an asset through ssh, in turn, in one process whose connection is warm.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from _lab import Lab, lab

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.resource import ComputeResource
from dagster_slurm_components.spec.profiles import load_profile

ROUNDS = 15
QUIET = 1.5
"""Seconds before each submission: slurmctld delays a job that follows another one closely."""
PAYLOAD = 'date +%s.%N > "$MARKS/begin"; sleep 0.03; date +%s.%N > "$MARKS/end"\n'
LIMITS = {"end_to_end_s": 0.3, "step_over_slurm_s": 0.5, "calls_to_submit": 1}


@dataclass(frozen=True)
class Round:
    """Seconds of one step.

    Attributes:
        before: From its beginning until the payload began.
        queued: How long of that the job was Slurm's.
        after: From the payload's end until the step was over.
    """

    before: float
    queued: float
    after: float

    @property
    def own(self) -> float:
        """What the step takes beside payload and queue."""
        return self.before - self.queued + self.after


def _marks(folder: Path) -> tuple[float, float]:
    begin, end = (float((folder / name).read_text()) for name in ("begin", "end"))
    for name in ("begin", "end"):
        (folder / name).unlink()
    return begin, end


def bare(setting: Lab, marks: Path) -> float:
    """Submit the payload as a person would; return the seconds until it began."""
    time.sleep(QUIET)
    script = marks / "bare.sh"
    script.write_text("#!/bin/bash\n" + PAYLOAD)
    started = time.time()
    setting.cluster.run(["sbatch", "--output=/dev/null", f"--export=ALL,MARKS={marks}", str(script)])
    while not (marks / "end").exists() or not (marks / "end").read_text().strip():
        time.sleep(0.001)
    return _marks(marks)[0] - started


def step(setting: Lab, marks: Path, instance: dg.DagsterInstance) -> Round:
    """Run the payload as an asset; the step's own events say when it began and ended."""

    @dg.asset
    def payload(context, compute: ComputeResource):  # type: ignore[no-untyped-def]
        script = marks.parent / "payload.sh"
        completed = compute.run(context=context, payload_path=script, extra_env={"MARKS": str(marks)})
        yield from completed.get_results()

    time.sleep(QUIET)
    compute = ComputeResource(profile="staging", project=str(setting.project))
    result = dg.materialize([payload], resources={"compute": compute}, instance=instance)
    times = {
        record.event_log_entry.dagster_event_type: record.event_log_entry.timestamp
        for record in instance.get_records_for_run(result.run_id).records
    }
    begin, end = _marks(marks)
    queued = result.asset_materializations_for_node("payload")[0].metadata["job/queue_wait_s"].value
    return Round(
        before=begin - times[dg.DagsterEventType.STEP_START],
        queued=float(str(queued)),
        after=times[dg.DagsterEventType.STEP_SUCCESS] - end,
    )


def _count_calls(satellite: Satellite) -> list[str]:
    """Record the operations that are asked of the host from now on."""
    calls: list[str] = []
    host, ask = satellite.host, satellite.host.call

    def counted(op, *args, **kwargs):  # type: ignore[no-untyped-def]
        calls.append(op)
        return ask(op, *args, **kwargs)

    object.__setattr__(host, "call", counted)
    return calls


def main() -> None:
    with lab() as setting, dg.instance_for_test() as instance:
        marks = setting.project / "marks"
        marks.mkdir()
        (setting.project / "payload.sh").write_text(PAYLOAD)
        step(setting, marks, instance)  # warms the connection
        calls = _count_calls(target(load_profile("staging", start=setting.project)).satellite)
        pairs = []
        until_submitted = []
        for _ in range(ROUNDS):
            calls.clear()
            pairs.append((bare(setting, marks), step(setting, marks, instance)))
            until_submitted.append(calls.index("submit") + 1)
    figures = {
        "bare_sbatch_to_payload_start_s": statistics.median(one for one, _ in pairs),
        "step_start_to_payload_start_s": statistics.median(other.before for _, other in pairs),
        "end_to_end_s": statistics.median(other.after for _, other in pairs),
        "end_to_end_max_s": max(other.after for _, other in pairs),
        "step_over_slurm_s": statistics.median(other.own for _, other in pairs),
        "calls_to_submit": max(until_submitted),
    }
    rounded = {name: round(value, 4) for name, value in figures.items()}
    met = all(figures[name] <= limit for name, limit in LIMITS.items())
    print(json.dumps({"benchmark": "latency", **rounded, "limits": LIMITS, "met": met, "rounds": ROUNDS}))


if __name__ == "__main__":
    main()
