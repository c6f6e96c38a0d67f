"""What the sampler costs: CPU and memory beside a payload of a minute, and the time that it adds to one of 0.03 s.

Runs job scripts as plain processes, as the local profile does, in turn with and without the sampler.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dagster_slurm_components.jobs.bundle import sampler
from dagster_slurm_components.launchers.base import LaunchContext
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.launchers.testing import make_run_directory, outside_slurm
from dagster_slurm_components.spec.launchers import BashLauncher
from dagster_slurm_components.spec.resources import Resources

ROUNDS = 50
BEGIN, END = 10, 70
"""Seconds of a job between which CPU is counted: Python's start is a matter of its own."""
LIMITS = {"share_of_a_core": 0.002, "memory_mib": 15, "added_to_a_short_job_s": 0.02}


def run_directory(folder: Path, seconds: float, *, sampled: bool) -> Path:
    launch = plan(BashLauncher(), ("sleep", str(seconds)), LaunchContext(Resources(), "process"))
    make_run_directory(folder, launch, None, {})
    for name, content in sampler().items() if sampled else ():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    words = ["bash", str(folder / "job.sh"), str(folder)]
    return subprocess.Popen(words, env=outside_slurm(), stdin=subprocess.DEVNULL)


def elapsed(folder: Path) -> float:
    begin = time.perf_counter()
    assert start(folder).wait() == 0
    return time.perf_counter() - begin


def sampler_of(folder: Path) -> int:
    done = subprocess.run(["pgrep", "-f", f"sample.py {folder}"], capture_output=True, text=True, check=True)
    return int(done.stdout)


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def beside_a_payload(folder: Path) -> dict[str, float]:
    job = start(run_directory(folder, END + 1, sampled=True))
    time.sleep(BEGIN)
    pid = sampler_of(folder)
    began, used = time.monotonic(), cpu(pid)
    time.sleep(END - BEGIN)
    share = (cpu(pid) - used) / (time.monotonic() - began)
    most = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert most is not None
    assert job.wait() == 0
    processes = len([name for name in os.listdir("/proc") if name.isdigit()])
    size = (folder / "usage" / "0.jsonl").stat().st_size
    return {
        **{"share_of_a_core": share, "cpu_at_the_start_s": used, "memory_mib": int(most[1]) / 1024},
        **{"processes_on_the_machine": processes, "file_bytes": size},
    }


def main() -> None:
    if not sys.platform.startswith("linux"):
        print(json.dumps({"benchmark": "sampler", "skipped": "it is measured by /proc"}))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = beside_a_payload(Path(folder, "long"))
        bare, sampled = (
            run_directory(Path(folder, f"{with_}"), 0.03, sampled=with_) for with_ in (False, True)
        )
        pairs = [(elapsed(bare), elapsed(sampled)) for _ in range(ROUNDS)]
    figures["short_job_s"] = statistics.median(one for one, _ in pairs)
    figures["added_to_a_short_job_s"] = statistics.median(two - one for one, two in pairs)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    met = all(figures[name] <= limit for name, limit in LIMITS.items())
    print(json.dumps({"benchmark": "sampler", **rounded, "limits": LIMITS, "met": met, "rounds": ROUNDS}))


if __name__ == "__main__":
    main()
