"""A limited number of jobs: nobody submits one too many, and nobody asks Slurm for that."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from satellite_fixture import FakeSlurm, bundle
from waiting import PATIENCE

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import (
    Budget,
    JobLimit,
    Process,
    QueueQuery,
    SubmitReply,
    SubmitRequest,
)
from dagster_slurm_components.slurm.queue import LIVE

BUNDLE = bundle({"job.sh": "exec sleep 300"})


class Queue:
    """A fake sbatch and squeue: ``jobs`` holds the ids of all that were made, ``over`` those that have ended."""

    def __init__(self, slurm: FakeSlurm, workdir: Path) -> None:
        self.slurm, self.workdir = slurm, workdir
        (slurm.folder / "over").touch()
        slurm.script("sbatch", "echo $$ >>jobs; echo $$")
        slurm.script(
            "squeue",
            "echo x >>asked; while read -r id; do grep -qx $id over && state=COMPLETED || state=PENDING; "
            'echo "$id|$state|1|0|1|None|"; done <jobs',
        )

    def request(self, number: int, jobs: int = 3, budget: Budget | None = None) -> SubmitRequest:
        query = QueueQuery(
            f"{self.workdir}/queue/squeue.json", (self.slurm.squeue,), 0.2, 20.0, budget=budget
        )
        limit = JobLimit(jobs, f"{self.workdir}/queue/submitted.json", 120.0, query, LIVE)
        run_dir = f"{self.workdir}/runs/{number}"
        return self.slurm.request(self.workdir, run_dir=run_dir, token=f"t{number}", limit=limit)

    def asked(self) -> int:
        path = self.slurm.folder / "asked"
        return len(path.read_text().split()) if path.exists() else 0

    def end(self, job_id: str | None) -> None:
        with (self.slurm.folder / "over").open("a") as over:
            over.write(f"{job_id}\n")


@pytest.fixture
def queue(slurm: FakeSlurm, workdir: Path) -> Queue:
    return Queue(slurm, workdir)


def until_submitted(satellite: Satellite, request: SubmitRequest) -> SubmitReply:
    deadline = time.monotonic() + PATIENCE
    while (reply := satellite.submit(request, BUNDLE)).outcome == "full":
        assert time.monotonic() < deadline, reply
        time.sleep(0.1)
    return reply


def test_one_too_many_waits_until_one_has_ended(satellite: Satellite, queue: Queue) -> None:
    made = [satellite.submit(queue.request(number), BUNDLE) for number in range(3)]
    assert [reply.outcome for reply in made] == ["submitted"] * 3
    assert queue.asked() == 1, "the first of all looks what is there, the others need no query"
    refused = satellite.submit(queue.request(3), BUNDLE)
    assert (refused.outcome, refused.job_id) == ("full", None)
    assert refused.detail == "3 jobs wait or run, and limits.max_submit_jobs is 3"
    assert not Path(queue.request(3).run_dir).exists()
    assert satellite.submit(queue.request(0), BUNDLE).outcome == "known", "a job that is there needs no place"
    queue.end(made[1].job_id)
    assert until_submitted(satellite, queue.request(3)).outcome == "submitted"
    assert satellite.submit(queue.request(4), BUNDLE).outcome == "full"


def test_many_at_once_take_no_more_than_there_are(local: Satellite, queue: Queue) -> None:
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda number: local.submit(queue.request(number), BUNDLE), range(12)))
    outcomes = [reply.outcome for reply in replies]
    assert (outcomes.count("submitted"), outcomes.count("full")) == (3, 9)
    assert len(queue.slurm.jobs()) == 3


def test_jobs_that_others_submitted_count(local: Satellite, queue: Queue) -> None:
    queue.slurm.jobs_file.write_text("91\n92\n")
    assert local.submit(queue.request(0), BUNDLE).outcome == "submitted"
    assert local.submit(queue.request(1), BUNDLE).outcome == "full"


def test_a_refused_submission_gives_its_place_back(local: Satellite, queue: Queue) -> None:
    queue.slurm.script("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    for number in range(5):
        assert local.submit(queue.request(number, 1), BUNDLE).outcome == "rejected"


def test_a_submission_whose_end_is_unknown_keeps_its_place_for_a_while(
    local: Satellite, queue: Queue
) -> None:
    queue.slurm.script("sbatch", "echo 'Socket timed out on send/recv' >&2; exit 1")
    assert local.submit(queue.request(0, 1), BUNDLE).outcome == "uncertain"
    queue.slurm.script("sbatch", "echo $$ >>jobs; echo $$")
    assert local.submit(queue.request(1, 1), BUNDLE).outcome == "full"
    assert local.submit(queue.request(0, 1), BUNDLE).outcome == "submitted", "its own place is no hindrance"
    assert len(queue.slurm.jobs()) == 1


@pytest.mark.parametrize("failure", ["exit 1", "echo 'slurm_load_jobs error: ...' >&2; exit 0"])
def test_a_queue_that_gives_no_answer_frees_no_place(local: Satellite, queue: Queue, failure: str) -> None:
    for number in range(3):
        assert local.submit(queue.request(number), BUNDLE).outcome == "submitted"
    queue.slurm.script("squeue", failure)
    time.sleep(0.3)
    assert local.submit(queue.request(3), BUNDLE).outcome == "full"


def test_the_budget_holds_for_whoever_waits(local: Satellite, queue: Queue) -> None:
    budget = Budget(f"{queue.workdir}/queue/budget.json", 0.1, 3)
    for number in range(3):
        assert local.submit(queue.request(number, budget=budget), BUNDLE).outcome == "submitted"
    for _ in range(6):
        assert local.submit(queue.request(3, budget=budget), BUNDLE).outcome == "full"
        time.sleep(0.25)
    assert queue.asked() == 2


def test_processes_are_counted_by_looking_at_them(local: Satellite, workdir: Path) -> None:
    def request(number: int) -> SubmitRequest:
        return SubmitRequest(
            run_dir=f"{workdir}/runs/{number}",
            workdir=str(workdir),
            token=f"t{number}",
            mode="process",
            argv=("/bin/sh", "job.sh"),
            limit=JobLimit(2, f"{workdir}/queue/submitted.json", 30.0),
        )

    made = [local.submit(request(number), BUNDLE) for number in range(2)]
    assert local.submit(request(2), BUNDLE).outcome == "full"
    local.kill(Process.parse(str(made[0].job_id)), "KILL")
    last = until_submitted(local, request(2))
    assert last.outcome == "submitted"
    for reply in (made[1], last):
        local.kill(Process.parse(str(reply.job_id)), "KILL")


def test_a_place_taken_by_somebody_who_was_killed_is_given_back(local: Satellite, queue: Queue) -> None:
    request = queue.request(1, 1)
    assert request.limit is not None
    short = request._replace(limit=request.limit._replace(window=0.0))
    assert local.submit(short, BUNDLE).outcome == "submitted"
    notes = Path(request.limit.path)
    # As if it had been killed before it wrote the id: neither the note nor the queue knows the job.
    taken = str(time.time())
    notes.write_text(f'{{"asked": 1, "seen": [], "noted": {{"gone": {{"at": {taken}, "job_id": null}}}}}}')
    queue.end(queue.slurm.jobs()[0])
    other = queue.request(2, 1)._replace(limit=short.limit)
    assert local.submit(other, BUNDLE).outcome == "full"
    assert until_submitted(local, other).outcome == "submitted"
