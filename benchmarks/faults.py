"""A thousand submissions, each hit by faults drawn from its seed: how many jobs are lost, how many made twice.

Faults of one submission, in any combination: our process dies by SIGKILL at a random line of the code, once or twice
(and is started again: the new process takes the lease over once the old one is proven dead); the request or the reply
is lost, of submissions and of changes of the lease; ``sbatch`` fails although the job was made, before it was made, or
makes it a moment later; the queue can't be asked; a second process claims the same step at the same time. ``COUNT`` and
``SEED`` change what is drawn.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from _killing import adopt_orphans, killed_at, reap

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.errors import HostUnreachableError
from dagster_slurm_components.hosts import satellite
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.calls import LeaseRequest, SubmitRequest
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.parked import ParkedHost, Parking
from dagster_slurm_components.jobs import lease, lease_store
from dagster_slurm_components.jobs import submit as submission
from dagster_slurm_components.jobs.lease import (
    Adopt,
    EndFirst,
    Fresh,
    HeldError,
    Note,
    Owner,
    decide,
    this_owner,
)
from dagster_slurm_components.jobs.lease_store import LeaseStore
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.launchers.base import LaunchPlan

COUNT = int(os.environ.get("COUNT", "1000"))
SEED = int(os.environ.get("SEED", "1"))
LIMITS = {"duplicates": 0, "losses": 0}
OURS = {
    *map(str, Path(satellite.__file__).parent.glob("*.py")),
    submission.__file__,
    lease.__file__,
    lease_store.__file__,
}
_LINES = 900
"""About as many lines of ours a submission executes; a kill beyond its end is no kill."""

SBATCH = """#!/bin/sh
# sbatch FOLDER TOKEN FAULT: the fault happens on the first call alone.
make() { echo "$$|$1" >>"$2/jobs"; }
if mkdir "$1/called" 2>/dev/null; then
    case $3 in
    accepted) make "$2" "$1"; echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1;;
    refused) echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1;;
    late) (sleep 0.4; make "$2" "$1") >/dev/null 2>&1 & echo 'slurm: Zero Bytes were transmitted' >&2; exit 1;;
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
    """Loses requests and replies as told: ``request``, ``reply`` or ``none`` for each call that changes something."""

    def __init__(self, losses: list[str]) -> None:
        self._losses = losses

    def call(
        self, op: str, params: Mapping[str, Any] | None = None, blob: bytes = b"", *, timeout: float = 60.0
    ) -> Reply:
        """Do one operation, or seem not to."""
        loss = self._losses.pop(0) if op in ("submit", "change_lease") and self._losses else "none"
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

    def request(
        self, spec: JobSpec, run_dir: str, workdir: str, claim: LeaseRequest | None = None
    ) -> SubmitRequest:
        """Ask for the programs of the test; a job is visible within a second."""
        request = super().request(spec, run_dir, workdir, claim)
        asked = (str(self._folder), request.token)
        return replace(
            request,
            argv=(str(self._programs / "sbatch"), *asked, self._fault),
            lookups=((str(self._programs / "squeue"), *asked, str(self._deaf)),),
            lookup_pattern=r"^(\d+)\|",
            window=1.0,
        )


def spec(number: int) -> JobSpec:
    """Return a job."""
    identity = JobIdentity(run_id=f"run{number}", step="step", partition=None, attempt=0)
    return JobSpec(identity, LaunchPlan(script="true", payload=("true",)), Activation())


def submit(number: int, folder: Path, slurm: SlurmScheduler, losses: list[str]) -> str | None:
    """Claim and submit as a step does; return the job, or nothing where a process that lives follows it."""

    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, 0.1))

    host = ParkedHost(FaultyHost(losses), Parking(math.inf, tell=lambda text: None, sleep=sleep))
    satellite, wanted, owner = Satellite(host), spec(number), this_owner(f"run{number}", step_worker=False)
    leases = LeaseStore(satellite, str(folder))
    while True:
        epoch = None
        attempts = leases.attempts(f"{folder}/{wanted.identity.call_folder}")
        try:
            decision = decide(attempts, wanted=lambda lease: None, released=Owner.known_dead)
        except HeldError:
            return None
        if isinstance(decision, EndFirst):
            raise TypeError(decision.why)  # nobody wants another content
        if isinstance(decision, Adopt):
            taken = leases.take(decision.attempt, owner)
            if taken is None:
                continue
            epoch = taken.epoch
        number_of_attempt = decision.number if isinstance(decision, Fresh) else decision.attempt.number
        identity = replace(wanted.identity, attempt=number_of_attempt)
        claim = LeaseRequest("digest", "content", asdict(owner), Note().written(), epoch)
        with contextlib.suppress(submission.TakenError):
            job = replace(wanted, identity=identity)
            return submission.submit(satellite, slurm, job, str(folder), claim=claim, sleep=sleep).job_id


def second_process(work: Callable[[], str | None], file: Path) -> None:
    """Do the work in a child as well, beside us; it writes down which job it follows."""
    if os.fork() == 0:
        file.write_text(work() or "")
        os._exit(0)


def inject(number: int, folder: Path, programs: Path) -> tuple[list[str], list[str], list[str]]:
    """Do one submission with its faults; return the jobs made, the ids told, and the faults."""
    folder.mkdir()
    draw = random.Random(f"{SEED}.{number}")
    fault = draw.choice(["none", "none", "accepted", "refused", "late"])
    deaf = draw.choice([0, 0, 0, 1, 2])
    losses = draw.choices(["none", "request", "reply"], weights=[2, 1, 1], k=4)
    slurm = FaultySlurm(programs, folder, fault, deaf)
    faults = [f"sbatch {fault}", f"deaf {deaf}", *(f"lost {loss}" for loss in losses)]
    for _ in range(draw.choice([0, 0, 1, 1, 2])):
        line = draw.randrange(1, _LINES)
        if killed_at(line, lambda: submit(number, folder, slurm, list(losses)), OURS):
            faults.append("killed")
    other = folder / "other"
    if draw.random() < 0.15:
        second_process(lambda: submit(number, folder, slurm, []), other)
        faults.append("two at once")
    told = submit(number, folder, slurm, losses)
    reap()
    others = other.read_text() if other.exists() else ""
    if told is None:
        faults.append("left to the other")
    elif others:
        faults.append("followed by both")
    ids = [job for job in (told, others) if job]
    jobs = (folder / "jobs").read_text().split() if (folder / "jobs").exists() else []
    return [job.partition("|")[0] for job in jobs], ids, faults


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
            wrong += set(told) != set(jobs)
            if len(jobs) != 1 or set(told) != set(jobs):
                print(f"seed {SEED}.{number}: jobs {jobs}, told {told}, faults {faults}", file=sys.stderr)
    found = {"injections": COUNT, "duplicates": duplicates, "losses": losses, "wrong_ids": wrong}
    holds = not (duplicates or losses or wrong)
    more = {"seconds": round(time.monotonic() - began, 1), "faults": dict(sorted(counts.items()))}
    print(json.dumps({"benchmark": "faults", **found, **more, "limits": LIMITS, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
