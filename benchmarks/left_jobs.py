"""What a thousand left jobs cost the process that evaluates the sensor, and whether each result is stored once.

A thousand jobs were left: half report an asset with a check, half nothing, and one in ten fails. In the first part all
of them go on, and passes are timed. In the second they end, some before each of 20 processes that evaluate the sensor
one pass after another; each of these is killed at a random moment. A last one goes on until nothing is left. Then what
Dagster has stored is counted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import dagster as dg

from dagster_slurm_components import slurm_jobs_sensor
from dagster_slurm_components.hosts.satellite.leases import LEFT, VERSION
from dagster_slurm_components.jobs.lease import Note
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.jobs.owner import Owner
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.pipes.asset_events import Origin
from dagster_slurm_components.pipes.left.leave import LeftCheck, LeftRecord, left_jobs_of
from dagster_slurm_components.spec.profiles import load_profile

JOBS = int(os.environ.get("JOBS", "1000"))
KILLS = int(os.environ.get("KILLS", "20"))
PASSES = 10
SEED = 7
LIMITS = {"pass_s": 2.0, "memory_mib": 60.0}


class World:
    """A project, a Dagster instance, and left jobs, made as steps leave them."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        (root / "pyproject.toml").touch()
        self.root, self.instance = root, instance
        self.workdir = Path(target(load_profile("local", start=root)).workdir)
        self.run = instance.add_run(
            dg.DagsterRun("job", status=dg.DagsterRunStatus.SUCCESS, tags={"slurm/left": "local"})
        )
        alive = Owner.of(self.run.run_id, os.getpid())
        self.job = f"{alive.pid}:{alive.start}"
        self.folders: list[Path] = []

    def leave(self, number: int) -> None:
        """Make the run directory of a job that is this process, so that it lives."""
        asset = Origin(f"asset{number}", False, "1", {}, ())
        checks = (LeftCheck(asset.key, "ok", False, False),) if number % 2 else ()
        record = LeftRecord(self.run.run_id, "job", f"step{number}", (asset,), checks, (), ())
        identity = JobIdentity(f"{left_jobs_of(self.instance)}-{number}", f"step{number}")
        folder = self.workdir / identity.folder
        folder.mkdir(parents=True)
        lease = {
            "version": VERSION,
            "token": identity.token,
            "epoch": 1,
            "state": LEFT,
            "digest": "d",
            "content": "c",
            "owner": asdict(Owner.of(self.run.run_id, os.getpid())),
            "renewed": time.time(),
            "outcome": None,
            "finished": None,
            "shown": {},
            "note": asdict(Note(profile="local", step=identity.step)),
        }
        (folder / "left.json").write_bytes(record.dumps())
        (folder / "messages.jsonl").touch()
        (folder / "ledger").write_text(f"token={identity.token}\njob_id={self.job}\nsubmitted=1\n")
        (folder / "status").write_text("restart=0\nstarted=1\nhost=here\n")
        (folder / "lease").write_text(json.dumps(lease))
        index = self.workdir / "open"
        index.mkdir(exist_ok=True)
        (index / identity.token).write_text(str(folder))
        self.folders.append(folder)

    def end(self, number: int) -> None:
        """Let a job end."""
        folder, code = self.folders[number], int(number % 10 == 0)
        if number % 2:
            metadata = {"n": {"raw_value": number, "type": "int"}}
            made = {"asset_key": f"asset{number}", "metadata": metadata, "data_version": None}
            checked = {"asset_key": f"asset{number}", "check_name": "ok", "passed": True}
            lines = [
                {"method": "report_asset_materialization", "params": made},
                {"method": "report_asset_check", "params": checked},
            ]
            (folder / "messages.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        with (folder / "status").open("a") as status:
            status.write(f"ended=2\nexit={code}\n")

    def stored(self) -> Counter[int]:
        """Return of how many results there are none, one, two..."""
        counted: Counter[int] = Counter()
        for number in range(JOBS):
            key = dg.AssetKey(f"asset{number}")
            made = len(self.instance.fetch_materializations(key, limit=10).records)
            failed = number % 10 == 0
            counted[made + 1 if failed else made] += 1  # a failure is counted below
            if number % 2:
                history = self.instance.event_log_storage.get_asset_check_execution_history
                counted[len(history(dg.AssetCheckKey(key, "ok"), limit=10))] += 1
        failures = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        of = Counter(key for run in failures for key in run.asset_selection or ())
        counted.update(of[dg.AssetKey(f"asset{number}")] for number in range(0, JOBS, 10))
        return counted


def evaluate(root: str, home: str) -> None:
    """Evaluate the sensor one pass after another, and print what each took; the process is ended from outside."""
    sensor, cursor = slurm_jobs_sensor(project=root), None
    with dg.DagsterInstance.from_config(home) as instance:
        while True:
            began, cpu = time.monotonic(), time.process_time()
            with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
                sensor(context)
                cursor = context.cursor
            took, cpu = time.monotonic() - began, time.process_time() - cpu
            lines = Path("/proc/self/status").read_text().splitlines()
            memory = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
            print(json.dumps({"pass_s": took, "cpu_s": cpu, "memory_mib": memory / 1024}), flush=True)
            time.sleep(0.05)


class Evaluator:
    """A process that evaluates the sensor."""

    def __init__(self, root: Path, home: str) -> None:
        words = [sys.executable, __file__, "evaluate", str(root), home]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def passes(self, count: int) -> list[dict[str, float]]:
        """Return what so many passes took."""
        assert self.process.stdout is not None
        return [json.loads(self.process.stdout.readline()) for _ in range(count)]

    def kill(self) -> None:
        """End it as the kernel does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def main() -> None:
    if sys.argv[1:2] == ["evaluate"]:
        evaluate(*sys.argv[2:])
        return
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="dg-slurm-bench-") as root, tempfile.TemporaryDirectory() as home:
        (Path(home) / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with dg.DagsterInstance.from_config(home) as instance:
            world = World(Path(root), instance)
            evaluator = Evaluator(world.root, home)
            without = evaluator.passes(PASSES)
            for number in range(JOBS):
                world.leave(number)
            evaluator.passes(2)  # the first of them began when not all were left
            waiting = evaluator.passes(PASSES)
            evaluator.kill()
            left = [*range(JOBS)]
            chance.shuffle(left)
            for kill in range(KILLS):
                for number in left[kill::KILLS]:
                    world.end(number)
                evaluator = Evaluator(world.root, home)
                evaluator.passes(1)
                time.sleep(chance.uniform(0, 1.5))
                evaluator.kill()
            evaluator, reporting, began = Evaluator(world.root, home), [], time.monotonic()
            remained = len(list((world.workdir / "open").iterdir()))
            while any((world.workdir / "open").iterdir()):
                reporting += evaluator.passes(1)
            took = time.monotonic() - began
            evaluator.kill()
            counted = world.stored()
    slowest = max(each["pass_s"] for each in [*waiting, *reporting])
    grown = max(each["memory_mib"] for each in waiting) - without[-1]["memory_mib"]
    wrong = {times: count for times, count in counted.items() if times != 1}
    figures = {
        "benchmark": "left_jobs",
        "jobs": JOBS,
        "kills": KILLS,
        "pass_without_s": round(min(each["pass_s"] for each in without), 3),
        "pass_waiting_s": round(max(each["pass_s"] for each in waiting), 3),
        "cpu_of_a_pass_waiting_s": round(max(each["cpu_s"] for each in waiting), 3),
        "cpu_of_a_pass_reporting_s": round(max((each["cpu_s"] for each in reporting), default=0.0), 3),
        "pass_reporting_s": round(max((each["pass_s"] for each in reporting), default=0.0), 3),
        "reported_by_the_last": remained,
        "seconds_for_these": round(took, 1),
        "memory_mib": round(grown, 1),
        "results": sum(counted.values()),
        "not_once": wrong,
        "limits": LIMITS,
        "met": slowest <= LIMITS["pass_s"] and grown <= LIMITS["memory_mib"] and not wrong,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
