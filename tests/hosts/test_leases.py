"""Submissions with a claim: whose job it is, and of what content; hostile names and files."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lease_fixture import BUNDLE, LONG_AGO, OURS, THEIRS, Step, claim
from satellite_fixture import HOSTILE, FakeSlurm

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite import locks
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest


class TestClaim:
    def test_one_call_makes_the_job_its_lease_and_its_place_in_the_index(self, step: Step) -> None:
        before = time.time()
        assert step.submit().outcome == "submitted"
        lease = step.lease()
        renewed = lease.pop("renewed")
        assert before - 1 <= renewed <= time.time()
        assert lease == {
            "version": 1,
            "token": "t0",
            "epoch": 1,
            "state": "following",
            "digest": "d1",
            "content": "c1",
            "owner": OURS,
            "outcome": None,
            "finished": None,
            "shown": {},
            "note": {"step": "train"},
        }
        assert (step.path() / "lease").stat().st_mode & 0o777 == 0o600
        assert (step.index / "t0").read_text() == step.run_dir()
        assert step.listed() == [step.run_dir()]

    def test_the_same_first_submission_again_is_known(self, step: Step) -> None:
        """Its reply was lost: neither a second job nor a second lease."""
        job = step.submit().job_id
        before = step.lease()
        again = step.submit()
        assert (again.outcome, again.job_id) == ("known", job)
        assert step.lease() == before
        assert step.slurm.jobs() == [job]

    def test_whoever_took_it_over_finds_the_job_by_the_new_epoch(self, step: Step) -> None:
        job = step.submit().job_id
        assert step.change(owner=THEIRS)[0]
        again = step.submit(wanted=claim(owner=THEIRS, epoch=2))
        assert (again.outcome, again.job_id) == ("known", job)

    def test_whoever_took_over_a_job_that_did_its_work_finds_it_to_collect_its_results(
        self, step: Step
    ) -> None:
        """Refused, a retry asked the host for ever whether it may have the job that it had."""
        job = step.submit().job_id
        step.change(state="ended", outcome="COMPLETED")
        assert step.change(owner=THEIRS)[0]
        found = step.submit(wanted=claim(owner=THEIRS, epoch=2))
        assert (found.outcome, found.job_id) == ("known", job)
        step.change(epoch=2, state="collected")
        assert step.submit(wanted=claim(owner=THEIRS, epoch=2)).outcome == "taken"

    def test_whoever_takes_up_a_job_that_was_left_finds_it(self, step: Step) -> None:
        job = step.submit().job_id
        step.change(state="left")
        assert step.submit().outcome == "taken"
        assert step.change(owner=THEIRS)[0]
        found = step.submit(wanted=claim(owner=THEIRS, epoch=2))
        assert (found.outcome, found.job_id) == ("known", job)
        assert step.change(epoch=1, state="reporting")[0] is False
        assert step.change(epoch=2, state="reporting", outcome="COMPLETED")[0]
        assert step.submit(wanted=claim(owner=THEIRS, epoch=2)).outcome == "taken"
        assert step.listed() == [step.run_dir()]
        step.change(epoch=2, state="collected")
        assert step.listed() == []

    def test_whoever_took_it_over_before_it_made_a_job_makes_it(self, step: Step) -> None:
        step.slurm.script("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
        assert step.submit().outcome == "rejected"
        step.slurm.script("sbatch", "echo $$ >>jobs; echo $$")
        step.change(owner=THEIRS)
        assert step.submit().outcome == "taken"
        assert step.slurm.jobs() == []
        made = step.submit(wanted=claim(owner=THEIRS, epoch=2))
        assert (made.outcome, [made.job_id]) == ("submitted", step.slurm.jobs())
        assert step.lease()["epoch"] == 2

    @pytest.mark.parametrize(
        ("wanted", "detail"),
        [
            (claim("d2"), "it has other content"),
            (claim(owner=THEIRS), "somebody else follows it"),
            (claim(epoch=2), "somebody else follows it"),
            (claim(owner={**OURS, "start": "9-boot"}), "somebody else follows it"),
        ],
        ids=["digest", "owner", "epoch", "a later process of that number"],
    )
    def test_another_s_job_or_one_of_other_content_is_taken(
        self, step: Step, wanted: LeaseRequest, detail: str
    ) -> None:
        """D1: a known folder answered `known` whatever was to be run."""
        job = step.submit().job_id
        before = step.lease()
        refused = step.submit(wanted=wanted)
        assert (refused.outcome, refused.job_id, refused.detail) == ("taken", None, detail)
        assert step.lease() == before
        assert step.slurm.jobs() == [job]

    @pytest.mark.parametrize("state", ["cancel wanted", "cancelled", "ended"])
    def test_a_job_that_is_not_followed_any_more_is_taken(self, step: Step, state: str) -> None:
        step.submit()
        step.change(state=state, outcome="FAILED")
        assert step.submit().outcome == "taken"

    def test_a_lease_of_a_newer_release_is_taken_and_left_as_it_is(self, step: Step) -> None:
        step.submit()
        (step.path() / "lease").write_text('{"version": 2, "holder": "somebody", "epoch": 1}')
        refused = step.submit()
        assert (refused.outcome, refused.detail) == ("taken", "its lease is of version 2")
        assert (step.path() / "lease").read_text() == '{"version": 2, "holder": "somebody", "epoch": 1}'

    def test_a_folder_of_an_older_release_fits_no_content(self, step: Step) -> None:
        step.submit()
        (step.path() / "lease").unlink()
        assert step.submit().outcome == "taken"
        changed, lease = step.change(epoch=0, owner=OURS)
        assert (changed, lease["epoch"], lease["digest"]) == (True, 1, "")

    @pytest.mark.parametrize(
        ("earlier", "outcome"),
        [
            ({}, "taken"),
            ({"state": "cancel wanted"}, "taken"),
            ({"state": "ended", "outcome": "COMPLETED"}, "taken"),
            ({"state": "left"}, "taken"),
            ({"state": "ended", "outcome": "FAILED"}, "submitted"),
            ({"state": "cancelled"}, "submitted"),
        ],
        ids=["followed", "to be cancelled", "not collected", "left", "failed", "cancelled"],
    )
    def test_beside_an_open_attempt_no_other_is_made(
        self, step: Step, earlier: dict[str, Any], outcome: str
    ) -> None:
        """D7: two jobs of one call never run side by side."""
        step.submit()
        if earlier:
            assert step.change(**earlier)[0]
        jobs = len(step.slurm.jobs())
        assert step.submit(attempt=1).outcome == outcome
        assert len(step.slurm.jobs()) == jobs + (outcome == "submitted")
        assert step.path(1).exists() == (outcome == "submitted")
        assert (step.index / "t1").exists() == (outcome == "submitted")

    def test_an_attempt_after_one_that_is_being_reported_is_made(self, step: Step) -> None:
        step.submit()
        step.change(state="left")
        step.change(state="reporting", outcome="FAILED")
        assert step.submit(attempt=1).outcome == "submitted"
        assert step.listed() == [step.run_dir(0), step.run_dir(1)]

    def test_an_attempt_after_a_collected_one_is_made(self, step: Step) -> None:
        step.submit()
        step.change(state="ended", outcome="COMPLETED")
        step.change(state="collected")
        assert step.submit(attempt=1).outcome == "submitted"
        assert step.listed() == [step.run_dir(1)]

    def test_of_many_who_want_it_at_once_one_gets_it(self, here: Step) -> None:
        here.slurm.script("sbatch", "echo $$ >>jobs; sleep 0.1; echo $$")
        owners = [{**OURS, "run_id": f"r{number}", "pid": number} for number in range(6)]
        with ThreadPoolExecutor(len(owners)) as pool:
            replies = list(pool.map(lambda owner: here.submit(wanted=claim(owner=owner)), owners))
        assert sorted(reply.outcome for reply in replies) == ["submitted", *["taken"] * 5]
        (winner,) = [owner for owner, reply in zip(owners, replies, strict=True) if reply.job_id]
        assert here.lease()["owner"] == winner
        assert len(here.slurm.jobs()) == 1

    def test_settling_makes_nothing(self, step: Step) -> None:
        assert step.submit(settle_only=True).outcome == "none"
        assert not step.path().exists()
        assert not step.index.exists()
        job = step.submit().job_id
        # Nobody is asked who they are: it is known what was made, whoever made it.
        settled = step.submit(wanted=claim("d2", owner=THEIRS), settle_only=True)
        assert (settled.outcome, settled.job_id) == ("known", job)
        assert step.slurm.jobs() == [job]

    @pytest.mark.parametrize(("jobs", "outcome"), [("41\n", "adopted"), ("", "none")])
    def test_settling_finds_a_job_whose_id_was_never_written(
        self, step: Step, jobs: str, outcome: str
    ) -> None:
        step.path().mkdir(parents=True)
        (step.path() / "ledger").write_text("token=t0\nintent=1\n")
        step.slurm.jobs_file.write_text(jobs)
        assert step.submit(settle_only=True).outcome == outcome
        assert step.slurm.jobs_file.read_text() == jobs

    def test_a_folder_that_lost_its_records_gets_a_lease(self, step: Step) -> None:
        """As when a removal was cut off: without one its own follower would be told to leave."""
        step.path().mkdir(parents=True)
        (step.path() / "job.sh").write_text("half removed")
        assert step.submit().outcome == "submitted"
        assert step.lease()["epoch"] == 1
        assert step.listed() == [step.run_dir()]

    def test_without_a_claim_there_is_no_lease(self, here: Step) -> None:
        request = here.slurm.request(here.workdir)
        assert here.satellite.submit(request, BUNDLE).outcome == "submitted"
        assert not (Path(request.run_dir) / "lease").exists()
        assert not here.index.exists()


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "-rf"])
def test_hostile_names_stand_in_leases(
    satellite: Satellite, slurm: FakeSlurm, workdir: Path, name: str
) -> None:
    step = Step(satellite, slurm, workdir, f"runs/{name}/step")
    note = {"step": name, "upstream": {name: name}}
    assert step.submit(wanted=claim(name, note=note, owner={**OURS, "node": name})).outcome == "submitted"
    assert step.submit(wanted=claim(name, note=note, owner={**OURS, "node": name})).outcome == "known"
    (found,), _ = satellite.open_leases(str(workdir))
    assert found.run_dir == step.run_dir()
    assert (found.lease["digest"], found.lease["note"], found.lease["owner"]["node"]) == (name, note, name)
    changed, lease = satellite.change_lease(step.run_dir(), str(workdir), 1, state="ended", outcome=name)
    assert (changed, lease and lease["outcome"]) == (True, name)
    assert step.listed() == []
    (attempt,) = satellite.attempts(step.folder)
    assert attempt.run_dir == step.run_dir()


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"version": 1, "epo',
        "\0" * 200,
        "[]",
        "null",
        "7",
        "{}",
        '{"version": "1"}',
        '{"version": 1}',
        '{"version": 1, "epoch": 1, "state": "following"}',
        "ü",
    ],
)
def test_a_torn_or_foreign_lease_is_told_with_its_place(step: Step, text: str) -> None:
    step.submit()
    (step.path() / "lease").write_text(text)
    asks = [
        step.submit,
        lambda: step.satellite.change_lease(step.run_dir(), str(step.workdir), 1, state="ended"),
        lambda: step.satellite.attempts(step.folder),
        lambda: step.submit(attempt=1),
    ]
    for ask in asks:
        with pytest.raises(SatelliteError, match=r"step/0/lease") as caught:
            ask()
        assert caught.value.code == "bad_lease"
    assert (step.path() / "lease").read_text() == text
    assert len(step.slurm.jobs()) == 1


def test_it_works_where_flock_does_not(here: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    here.submit()
    assert here.change(owner=THEIRS)[0]
    here.write(renewed=LONG_AGO)
    assert here.renew(epoch=2) == (2, "following")
    assert here.lease()["renewed"] > LONG_AGO
    assert here.change(epoch=2, state="ended", outcome="FAILED")[0]
    assert here.listed() == []
    assert sorted(os.listdir(here.folder)) == [".lock", "0"]
