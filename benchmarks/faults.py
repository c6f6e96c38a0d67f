"""A thousand submissions, each hit by faults drawn from its seed: how many jobs are lost, how many made twice.

Faults of one submission, in any combination: our process dies by SIGKILL at a random line of the code (and is started
again); the request or the reply is lost; ``sbatch`` fails although the job was made, before it was made, or makes it a
moment later; the queue can't be asked; a second process submits the same step at the same time. ``COUNT`` and ``SEED``
change what is drawn.
"""

from __future__ import annotations

import collections
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _killing import adopt_orphans, killed_at, reap

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts import satellite
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.parked import ParkedHost, Parking
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest, SubmitRequest
from dagster_slurm_components.jobs import submit as submission
from dagster_slurm_components.jobs.model import JobHandle, JobIdentity, JobSpec
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.jobs.watch import Watcher
from dagster_slurm_components.launchers.base import LaunchPlan

COUNT = int(os.environ.get("COUNT", "1000"))
SEED = int(os.environ.get("SEED", "1"))
LIMITS = {"duplicates": 0, "losses": 0}
OURS = {*map(str, Path(satellite.__file__).parent.glob("*.py")), submission.__file__}
_LINES = 900
"""About as many lines of ours a submission executes; a kill beyond its end is no kill."""

SBATCH = """#!/bin/sh
# sbatch FOLDER TOKEN FAULT: the fault happens on the first call alone.
make() { echo "$$|$1" >>"$2/jobs"; }
if mkdir "$1/called" 2>/dev/null; then
    case $3 in
    accepted) make "$2" "$1"; echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1;;
    refused) echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1;;
    late) (sleep 0.1; make "$2" "$1") >/dev/null 2>&1 & echo 'slurm: Zero Bytes were transmitted' >&2; exit 1;;
    esac
fi
make "$2" "$1"
echo $$
"""
SQUEUE = """#!/bin/sh
# squeue FOLDER TOKEN DEAF: fails on its first DEAF calls.
echo x >>"$1/asked"
[ "$(wc -l <"$1/asked")" -gt "$3" ] || { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }
[ ! -e "$1/jobs" ] || grep "|$2$" "$1/jobs"
exit 0
"""


class FaultyHost(InProcessHost):
    """Loses requests and replies as told: ``request``, ``reply`` or ``none`` for each submission in turn."""

    def __init__(self, losses: list[str]) -> None:
        self._losses = losses

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation, or seem not to."""
        loss = self._losses.pop(0) if op == "submit" and self._losses else "none"
        if loss == "request":
            raise HostUnreachableError("the request was lost")
        reply = super().call(op, params, blob, timeout=timeout)
        if loss == "reply":
            raise HostUnreachableError("the reply was lost")
        return reply


class FaultySlurm(SlurmScheduler):
    """Slurm whose programs fail as told."""

    def __init__(self, programs: Path, folder: Path, fault: str, deaf: int) -> None:
        super().__init__(f"{folder}/queue")
        self._programs, self._folder, self._fault, self._deaf = programs, folder, fault, deaf

    def argv(self, spec: JobSpec, run_dir: str) -> Sequence[str]:
        """Ask for the test's own sbatch."""
        return (str(self._programs / "sbatch"), str(self._folder), spec.identity.token, self._fault)

    def settlement(self, run_dir: str, workdir: str, token: str, job_name: str) -> SubmitRequest:
        """Ask for the test's own squeue; a job is visible within a second."""
        squeue = (str(self._programs / "squeue"), str(self._folder), token, str(self._deaf))
        asked = super().settlement(run_dir, workdir, token, job_name)
        return asked._replace(lookups=(squeue,), window=1.0)


def spec(number: int) -> JobSpec:
    """Return a job."""
    identity = JobIdentity(run_id=f"run{number}", step="step", partition=None, attempt=0)
    return JobSpec(identity, LaunchPlan(script="true", payload=("true",)), Activation())


def submit(number: int, folder: Path, slurm: SlurmScheduler, losses: list[str]) -> JobHandle:
    """Submit as a step does."""

    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, 0.1))

    host = ParkedHost(FaultyHost(losses), Parking(math.inf, tell=lambda text: None, sleep=sleep))
    owner = {"run_id": f"run{number}", "node": "bench", "pid_namespace": "", "pid": 1, "start": "1"}
    claim = LeaseRequest(digest="d", content="c", owner=owner, note={})
    # Nobody watches these jobs; the watcher says how long an unclear answer is waited out.
    place = Target(Satellite(host), slurm, Watcher(Satellite(host), slurm, math.inf), str(folder))
    return submission.submit(place, spec(number), claim=claim, sleep=sleep)


def second_process(work: Any) -> None:
    """Do the work in a child as well, beside us."""
    if os.fork() == 0:
        work()
        os._exit(0)


def inject(number: int, folder: Path, programs: Path) -> tuple[list[str], str, list[str]]:
    """Do one submission with its faults; return the jobs made, the id told, and the faults."""
    folder.mkdir()
    draw = random.Random(f"{SEED}.{number}")
    fault = draw.choice(["none", "none", "accepted", "refused", "late"])
    deaf = draw.choice([0, 0, 0, 1, 2])
    losses = draw.choices(["none", "request", "reply"], weights=[2, 1, 1], k=3)
    line = draw.randrange(1, _LINES)
    slurm = FaultySlurm(programs, folder, fault, deaf)
    faults = [f"sbatch {fault}", f"deaf {deaf}", *(f"lost {loss}" for loss in losses)]
    if draw.random() < 0.6 and killed_at(line, lambda: submit(number, folder, slurm, list(losses)), OURS):
        faults.append("killed")
    if draw.random() < 0.15:
        second_process(lambda: submit(number, folder, slurm, []))
        faults.append("two at once")
    told = submit(number, folder, slurm, losses).job_id
    reap()
    jobs = (folder / "jobs").read_text().split() if (folder / "jobs").exists() else []
    return [job.partition("|")[0] for job in jobs], told, faults


def main() -> None:
    """Inject and print."""
    adopt_orphans()
    counts: collections.Counter[str] = collections.Counter()
    duplicates = losses = wrong = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        programs = Path(name) / "programs"
        programs.mkdir()
        for program, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (programs / program).write_text(text)
            (programs / program).chmod(0o755)
        for number in range(COUNT):
            jobs, told, faults = inject(number, Path(name) / str(number), programs)
            counts.update(faults)
            duplicates += len(jobs) > 1
            losses += not jobs
            wrong += jobs != [told]
            if jobs != [told]:
                print(f"seed {SEED}.{number}: jobs {jobs}, told {told}, faults {faults}", file=sys.stderr)
    found = {"injections": COUNT, "duplicates": duplicates, "losses": losses, "wrong_ids": wrong}
    holds = not (duplicates or losses or wrong)
    more = {"seconds": round(time.monotonic() - began, 1), "faults": dict(sorted(counts.items()))}
    print(json.dumps({"benchmark": "faults", **found, **more, "limits": LIMITS, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
