"""The lease of a run directory: made with the job, changed by compare-and-set, listed while it is open."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from satellite_fixture import HOSTILE, FakeSlurm, bundle

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.calls import FileRead, LeaseRenewal, LeaseRequest, SubmitReply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite import leases, locks
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.jobs.lease import parse_lease

BUNDLE = bundle({"job.sh": "true"})
OURS: Mapping[str, Any] = {
    "run_id": "r1",
    "node": "n1",
    "pid_namespace": "pid:[1]",
    "pid": 7,
    "start": "7-boot",
}
THEIRS: Mapping[str, Any] = {**OURS, "run_id": "r2", "pid": 8, "start": "8-boot"}
STATES = ("following", "cancel wanted", "cancelled", "ended", "collected")
ALLOWED = {
    "following": {"cancel wanted", "cancelled", "ended"},
    "cancel wanted": {"cancelled", "ended"},
    "ended": {"collected", "cancelled"},
    "cancelled": set(),
    "collected": set(),
}
LONG_AGO = 1_000_000.0


def claim(digest: str = "d1", **changes: Any) -> LeaseRequest:
    wanted: dict[str, Any] = {"content": "c1", "owner": OURS, "note": {"step": "train"}, **changes}
    return LeaseRequest(digest, **wanted)


class Step:
    """A call's folder on a host, and the attempts in it."""

    def __init__(
        self, satellite: Satellite, slurm: FakeSlurm, workdir: Path, folder: str = "runs/r1/step"
    ) -> None:
        self.satellite = satellite
        self.slurm = slurm
        self.workdir = workdir
        self.folder = f"{workdir}/{folder}"

    def run_dir(self, attempt: int = 0) -> str:
        return f"{self.folder}/{attempt}"

    def path(self, attempt: int = 0) -> Path:
        return Path(self.run_dir(attempt))

    def submit(self, attempt: int = 0, wanted: LeaseRequest | None = None, **changes: Any) -> SubmitReply:
        request = self.slurm.request(
            self.workdir,
            run_dir=self.run_dir(attempt),
            token=f"t{attempt}",
            claim=wanted if wanted is not None else claim(),
            **changes,
        )
        return self.satellite.submit(request, BUNDLE)

    def change(self, epoch: int = 1, attempt: int = 0, **changes: Any) -> tuple[bool, Mapping[str, Any]]:
        changed, lease = self.satellite.change_lease(
            self.run_dir(attempt), str(self.workdir), epoch, **changes
        )
        assert lease is not None
        assert lease == self.lease(attempt), "what is told is what stands there"
        return changed, lease

    def lease(self, attempt: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path(attempt) / "lease").read_text())
        return found

    def write(self, attempt: int = 0, **changes: Any) -> None:
        """Change a lease as only time, or another program, does."""
        (self.path(attempt) / "lease").write_text(json.dumps({**self.lease(attempt), **changes}))

    def renew(self, epoch: int = 1, shown: Mapping[str, Any] | None = None) -> tuple[int, str]:
        _, (told,) = self.satellite.follow([], [LeaseRenewal(self.run_dir(), epoch, shown)], total=0)
        return told

    def listed(self) -> list[str]:
        """Return the run directories of the open leases."""
        found, now = self.satellite.open_leases(str(self.workdir))
        assert abs(now - time.time()) < 60
        return [each.run_dir for each in found]

    @property
    def index(self) -> Path:
        return self.workdir / "open"


@pytest.fixture
def step(satellite: Satellite, slurm: FakeSlurm, workdir: Path) -> Step:
    return Step(satellite, slurm, workdir)


@pytest.fixture
def here(local: Satellite, slurm: FakeSlurm, workdir: Path) -> Step:
    """The same, in-process alone."""
    return Step(local, slurm, workdir)


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
            ({"state": "ended", "outcome": "FAILED"}, "submitted"),
            ({"state": "cancelled"}, "submitted"),
        ],
        ids=["followed", "to be cancelled", "not collected", "failed", "cancelled"],
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


class TestChange:
    @pytest.mark.parametrize("target", STATES)
    @pytest.mark.parametrize("begin", STATES)
    def test_only_what_follows_from_a_state_is_reached(self, here: Step, begin: str, target: str) -> None:
        here.submit()
        here.write(state=begin, renewed=LONG_AGO)
        before = here.lease()
        changed, lease = here.change(state=target)
        assert changed == (target == begin or target in ALLOWED[begin])
        assert lease["state"] == (target if changed else begin)
        if not changed:
            assert lease == before

    @pytest.mark.parametrize("epoch", [0, 2])
    def test_another_epoch_changes_nothing_and_is_told_the_lease(self, step: Step, epoch: int) -> None:
        step.submit()
        before = step.lease()
        assert step.change(epoch, state="ended", outcome="FAILED") == (False, before)
        assert step.listed() == [step.run_dir()]

    def test_an_end_is_told_with_its_outcome_and_time(self, step: Step) -> None:
        step.submit()
        shown = {"offsets": {"stdout.log": 5}, "inodes": {"stdout.log": 9}}
        changed, lease = step.change(state="ended", outcome="COMPLETED", finished=17.5, shown=shown)
        assert changed
        assert [lease[key] for key in ("state", "outcome", "finished", "shown")] == [
            "ended",
            "COMPLETED",
            17.5,
            shown,
        ]
        assert step.listed() == [step.run_dir()], "its results are not collected yet"

    @pytest.mark.parametrize(
        "changes",
        [
            {"state": "cancel wanted"},
            {"state": "cancelled", "outcome": "CANCELLED", "finished": 5.0},
            {"state": "ended", "outcome": "COMPLETED", "finished": 5.0},
            {"state": "ended", "outcome": "FAILED", "finished": 5.0},
            {"owner": THEIRS},
            {"owner": THEIRS, "state": "cancel wanted"},
        ],
    )
    def test_a_change_whose_reply_was_lost_counts_as_made(self, step: Step, changes: dict[str, Any]) -> None:
        step.submit()
        first, once = step.change(**changes)
        again, twice = step.change(**changes)
        assert (first, again) == (True, True)
        assert {**once, "renewed": 0} == {**twice, "renewed": 0}
        assert step.lease()["epoch"] == (2 if "owner" in changes else 1)

    def test_taking_over_makes_the_epoch_grow_and_shuts_the_old_owner_out(self, step: Step) -> None:
        step.submit()
        changed, lease = step.change(owner=THEIRS)
        assert (changed, lease["epoch"], lease["owner"], lease["state"]) == (True, 2, THEIRS, "following")
        assert step.change(state="ended", outcome="COMPLETED") == (False, lease)
        assert step.change(epoch=2, state="ended", outcome="COMPLETED")[0]

    def test_another_try_of_the_same_owner_takes_over_as_well(self, step: Step) -> None:
        """The owner is the run worker: a step's process of an earlier try has no say any more."""
        step.submit()
        assert step.change(owner=OURS)[1]["epoch"] == 2
        assert step.change(owner=OURS, epoch=2)[1]["epoch"] == 3
        assert step.change(epoch=2, state="ended")[0] is False

    def test_who_takes_over_what_was_taken_over_meanwhile_is_refused(self, step: Step) -> None:
        step.submit()
        third = {**OURS, "run_id": "r3"}
        assert step.change(owner=THEIRS)[0]
        assert step.change(owner=third)[0] is False
        assert step.lease()["owner"] == THEIRS
        assert step.change(epoch=2, owner=third)[0]
        # The second one's repeat: its reply was lost, and another has it by now.
        assert step.change(owner=THEIRS)[0] is False

    @pytest.mark.parametrize("state", ["cancelled", "collected"])
    def test_nobody_takes_over_what_can_not_go_where_they_want(self, step: Step, state: str) -> None:
        step.submit()
        if state == "collected":
            step.change(state="ended", outcome="COMPLETED")
        step.change(state=state)
        before = step.lease()
        assert step.change(owner=THEIRS, state="cancel wanted") == (False, before)

    def test_what_was_seen_is_kept_when_the_job_is_taken_over(self, step: Step) -> None:
        step.submit()
        shown = {"offsets": {"stdout.log": 5}, "inodes": {}}
        step.change(shown=shown)
        assert step.change(owner=THEIRS)[1]["shown"] == shown

    @pytest.mark.parametrize(
        ("changes", "open_"),
        [
            ([], True),
            ([{"state": "cancel wanted"}], True),
            ([{"state": "ended", "outcome": "COMPLETED"}], True),
            ([{"state": "ended", "outcome": "FAILED"}], False),
            ([{"state": "ended", "outcome": "TIMEOUT"}], False),
            ([{"state": "cancelled"}], False),
            ([{"state": "ended", "outcome": "COMPLETED"}, {"state": "collected"}], False),
            ([{"state": "ended", "outcome": "COMPLETED"}, {"state": "cancelled"}], False),
        ],
    )
    def test_it_is_listed_until_nobody_has_to_act_any_more(
        self, step: Step, changes: list[dict[str, Any]], open_: bool
    ) -> None:
        step.submit()
        for each in changes:
            assert step.change(**each)[0]
        assert (step.index / "t0").exists() == open_
        assert step.listed() == ([step.run_dir()] if open_ else [])

    def test_a_run_directory_that_is_gone_has_no_lease(self, step: Step) -> None:
        Path(step.folder).mkdir(parents=True)
        assert step.satellite.change_lease(step.run_dir(), str(step.workdir), 1, state="ended") == (
            False,
            None,
        )
        assert step.renew() == (0, "")

    def test_a_lease_of_a_newer_release_is_not_changed(self, step: Step) -> None:
        step.submit()
        step.write(version=2)
        before = step.lease()
        assert step.change(state="ended", outcome="FAILED") == (False, before)
        assert step.change(owner=THEIRS) == (False, before)

    def test_who_waits_in_vain_for_a_submission_is_told(self, here: Step) -> None:
        here.submit()
        with locked(leases.lock_of(os.fsencode(here.run_dir())), 1), pytest.raises(SatelliteError) as caught:
            InProcessHost().call(
                "change_lease",
                {"run_dir": here.run_dir(), "workdir": str(here.workdir), "epoch": 1, "lock_timeout": 0.1},
            )
        assert caught.value.code == "locked"

    def test_of_many_who_take_over_at_once_one_does(self, here: Step) -> None:
        here.submit()
        owners = [{**OURS, "run_id": f"r{number}"} for number in range(8)]

        def take(owner: Mapping[str, Any]) -> bool:
            return here.satellite.change_lease(here.run_dir(), str(here.workdir), 1, owner=owner)[0]

        with ThreadPoolExecutor(len(owners)) as pool:
            took = list(pool.map(take, owners))
        assert sum(took) == 1
        assert here.lease()["owner"] == owners[took.index(True)]
        assert here.lease()["epoch"] == 2


class TestRenew:
    def test_reading_is_a_sign_of_life_where_one_is_due(self, step: Step) -> None:
        step.submit()
        before = step.lease()
        assert step.renew() == (1, "following")
        assert step.lease() == before, "each sign is a rename on a shared disk"
        step.write(renewed=time.time() - leases.RENEW - 1)
        assert step.renew() == (1, "following")
        assert step.lease()["renewed"] >= before["renewed"]
        assert {**step.lease(), "renewed": 0} == {**before, "renewed": 0}

    def test_a_clock_that_was_set_back_makes_nobody_silent(self, step: Step) -> None:
        step.submit()
        step.write(renewed=time.time() + 10**6)
        step.renew()
        assert abs(time.time() - step.lease()["renewed"]) < 60

    def test_what_was_shown_is_written_at_once(self, step: Step) -> None:
        step.submit()
        shown = {"offsets": {"stdout.log": 5}, "inodes": {"stdout.log": 9}}
        assert step.renew(shown=shown) == (1, "following")
        assert step.lease()["shown"] == shown
        step.write(renewed=LONG_AGO)
        step.renew()
        assert step.lease()["shown"] == shown, "no news is no change"

    def test_files_are_read_in_the_same_call(self, step: Step) -> None:
        step.submit()
        path = f"{step.run_dir()}/job.sh"
        renewals = [LeaseRenewal(step.run_dir(), 1), LeaseRenewal(step.run_dir(1), 1)]
        (file,), told = step.satellite.follow([FileRead(path)], renewals, total=1000)
        assert file.data == b"true"
        assert told == [(1, "following"), (0, "")]

    def test_an_old_epoch_writes_nothing_and_hears_the_new_one(self, step: Step) -> None:
        step.submit()
        step.change(owner=THEIRS)
        step.write(renewed=LONG_AGO)
        before = step.lease()
        assert step.renew(epoch=1, shown={"offsets": {"stdout.log": 99}}) == (2, "following")
        assert step.lease() == before

    @pytest.mark.parametrize("state", ["cancel wanted", "cancelled", "ended"])
    def test_a_changed_state_is_told(self, step: Step, state: str) -> None:
        step.submit()
        step.change(state=state)
        assert step.renew() == (1, state)

    def test_a_taker_who_was_faster_than_the_sign_of_life_wins(
        self, here: Step, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look without the lock and the one under it."""
        here.submit()
        here.write(renewed=LONG_AGO)
        real = leases.locked

        def slowly(path: bytes, timeout: float) -> Any:
            if timeout == 1.0:  # the renewal's
                here.change(owner=THEIRS)
            return real(path, timeout)

        monkeypatch.setattr(leases, "locked", slowly)
        assert here.renew(shown={"offsets": {"stdout.log": 99}}) == (2, "following")
        assert (here.lease()["owner"], here.lease()["shown"]) == (THEIRS, {})

    def test_while_a_submission_holds_the_lock_it_is_left_for_the_next_time(self, here: Step) -> None:
        here.submit()
        here.write(renewed=LONG_AGO)
        with locked(leases.lock_of(os.fsencode(here.run_dir())), 1):
            assert here.renew() == (1, "following")
        assert here.lease()["renewed"] == LONG_AGO
        here.renew()
        assert here.lease()["renewed"] > LONG_AGO

    def test_a_lease_of_a_newer_release_is_only_told(self, step: Step) -> None:
        step.submit()
        text = '{"version": 2, "holder": "somebody", "epoch": 5}'
        (step.path() / "lease").write_text(text)
        assert step.renew(shown={"offsets": {}})[0] == 5
        assert (step.path() / "lease").read_text() == text

    def test_one_that_is_damaged_keeps_nobody_from_reading(self, step: Step) -> None:
        """One torn lease made all jobs of a process silent, for ever."""
        step.submit()
        (step.path() / "lease").write_text("torn")
        files, told = step.satellite.follow(
            [FileRead(f"{step.run_dir()}/job.sh")], [LeaseRenewal(step.run_dir(), 1)], total=1000
        )
        assert (files[0].data, told) == (b"true", [(1, "")])

    def test_on_a_full_disk_jobs_are_followed_all_the_same(
        self, here: Step, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here.submit()
        here.write(renewed=LONG_AGO)

        def full(path: bytes, data: bytes, **how: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(leases, "write_atomically", full)
        assert here.renew(shown={"offsets": {"stdout.log": 5}}) == (1, "following")
        assert (here.lease()["renewed"], here.lease()["shown"]) == (LONG_AGO, {})


class TestOpenLeases:
    def test_nothing_was_ever_submitted(self, step: Step) -> None:
        assert step.listed() == []
        assert not step.workdir.exists(), "a look makes no folder"

    def test_each_comes_with_its_lease_and_ledger(self, step: Step) -> None:
        job = step.submit().job_id
        (found,), _ = step.satellite.open_leases(str(step.workdir))
        assert (found.run_dir, found.lease) == (step.run_dir(), step.lease())
        assert f"job_id={job}\n" in found.ledger

    def test_a_run_directory_that_was_removed_leaves_the_index(self, step: Step) -> None:
        step.submit()
        step.path().rename(step.path(7))
        entry = step.index / "t0"
        assert step.listed() == []
        assert entry.exists(), "one that is just being made shows in the index first"
        os.utime(entry, (LONG_AGO, LONG_AGO))
        assert step.listed() == []
        assert not entry.exists()

    def test_one_that_closed_as_its_process_was_killed_leaves_the_index(self, step: Step) -> None:
        step.submit()
        step.write(state="collected")
        os.utime(step.index / "t0", (LONG_AGO, LONG_AGO))
        assert step.listed() == []
        assert not (step.index / "t0").exists()

    def test_an_open_one_stays_however_old_it_is(self, step: Step) -> None:
        step.submit()
        os.utime(step.index / "t0", (LONG_AGO, LONG_AGO))
        assert step.listed() == [step.run_dir()]
        assert step.listed() == [step.run_dir()]

    def test_an_entry_that_goes_during_the_look_does_no_harm(
        self, here: Step, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here.submit()
        here.submit(attempt=1, wanted=claim())  # taken: one is open
        real = leases._row

        def closes(folder: bytes) -> Any:
            (here.index / "t0").unlink()
            monkeypatch.setattr(leases, "_row", real)
            return None

        monkeypatch.setattr(leases, "_row", closes)
        assert here.listed() == []

    def test_one_that_can_not_be_read_hides_no_other(self, step: Step) -> None:
        """D21: one bad record made each pass of the sensor fail."""
        step.submit()
        other = Step(step.satellite, step.slurm, step.workdir, "runs/r1/other")
        request = step.slurm.request(step.workdir, run_dir=other.run_dir(), token="t9", claim=claim())
        step.satellite.submit(request, BUNDLE)
        (step.path() / "lease").write_text("")
        found, _ = step.satellite.open_leases(str(step.workdir))
        rows = {each.run_dir: each.lease for each in found}
        assert rows[other.run_dir()]["state"] == "following"
        assert parse_lease(rows[step.run_dir()]).newer, "told, and left alone"
        os.utime(step.index / "t0", (LONG_AGO, LONG_AGO))
        assert step.run_dir() in step.listed()

    def test_one_of_a_newer_release_is_for_that_to_judge(self, step: Step) -> None:
        step.submit()
        (step.path() / "lease").write_text('{"version": 2, "condition": "whatever"}')
        os.utime(step.index / "t0", (LONG_AGO, LONG_AGO))
        (found,), _ = step.satellite.open_leases(str(step.workdir))
        assert parse_lease(found.lease).newer
        assert (step.index / "t0").exists()
        assert step.submit(attempt=1).outcome == "taken"

    def test_attempts_are_told_in_the_order_of_their_numbers(self, step: Step) -> None:
        for attempt in (0, 1, 2, 9, 10):
            step.submit(attempt)
            step.change(attempt=attempt, state="ended", outcome="FAILED")
        (Path(step.folder) / "checkpoint").mkdir(exist_ok=True)
        (Path(step.folder) / "call=1" / "0").mkdir(parents=True)
        (Path(step.folder) / "11").mkdir()  # neither lease nor ledger
        found = step.satellite.attempts(step.folder)
        assert [each.run_dir for each in found] == [step.run_dir(number) for number in (0, 1, 2, 9, 10)]
        assert all(each.lease["outcome"] == "FAILED" and "job_id=" in each.ledger for each in found)
        assert step.satellite.attempts(f"{step.folder}/nowhere") == []

    def test_an_attempt_of_an_older_release_is_told_as_one_of_unknown_content(self, step: Step) -> None:
        step.submit()
        (step.path() / "lease").unlink()
        (found,) = step.satellite.attempts(step.folder)
        assert [found.lease[key] for key in ("epoch", "state", "digest", "owner")] == [
            0,
            "following",
            "",
            None,
        ]


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


class TestCheckpoint:
    """A checkpoint is for another attempt at the same content."""

    def attempt(self, step: Step, before: dict[str, Any], now: LeaseRequest) -> Path:
        """Let a first attempt write a checkpoint and end; make a second; return the call's folder."""
        step.submit()
        self.write(step, "of 0")
        step.change(state=before.get("state", "ended"), outcome=before["outcome"])
        if before["outcome"] == "COMPLETED":
            step.change(state="collected")
        assert step.submit(attempt=1, wanted=now).outcome == "submitted"
        return Path(step.folder)

    def write(self, step: Step, text: str) -> None:
        folder = Path(step.folder, "checkpoint")
        folder.mkdir(exist_ok=True)
        (folder / "state").write_text(text)

    @pytest.mark.parametrize(
        "before",
        [{"outcome": "TIMEOUT"}, {"outcome": "NODE_FAIL"}, {"state": "cancelled", "outcome": "CANCELLED"}],
    )
    def test_the_next_attempt_at_the_same_content_goes_on(self, step: Step, before: dict[str, Any]) -> None:
        more = claim("with more memory", content="c1")
        call = self.attempt(step, before, more)
        assert (call / "checkpoint" / "state").read_text() == "of 0"
        assert not (call / "checkpoint-0").exists()

    @pytest.mark.parametrize(
        ("outcome", "content"), [("TIMEOUT", "c2"), ("COMPLETED", "c1")], ids=["other content", "a success"]
    )
    def test_else_it_is_set_aside(self, step: Step, outcome: str, content: str) -> None:
        call = self.attempt(step, {"outcome": outcome}, claim(content=content))
        assert not (call / "checkpoint").exists()
        assert (call / "checkpoint-0" / "state").read_text() == "of 0"

    def test_each_is_set_aside_under_its_own_attempt_s_number(self, step: Step) -> None:
        call = self.attempt(step, {"outcome": "FAILED"}, claim(content="c2"))
        self.write(step, "of 1")
        step.change(attempt=1, state="ended", outcome="FAILED")
        step.submit(attempt=2, wanted=claim(content="c3"))
        assert {path.name: (path / "state").read_text() for path in call.glob("checkpoint*")} == {
            "checkpoint-0": "of 0",
            "checkpoint-1": "of 1",
        }

    def test_a_submission_that_was_cut_off_and_is_made_again_loses_none(
        self, here: Step, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was set aside already: there is none to set aside, and the one that was stays."""
        here.submit()
        self.write(here, "of 0")
        here.change(state="ended", outcome="FAILED")

        set_aside = leases.Claim._set_checkpoint_aside

        def set_aside_and_cut(self: leases.Claim) -> None:
            set_aside(self)
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(leases.Claim, "_set_checkpoint_aside", set_aside_and_cut)
            with pytest.raises(SatelliteError, match="No space left"):
                here.submit(attempt=1, wanted=claim(content="c2"))
        assert not here.path(1).exists()
        assert here.submit(attempt=1, wanted=claim(content="c2")).outcome == "submitted"
        assert Path(here.folder, "checkpoint-0", "state").read_text() == "of 0"

    def test_a_first_attempt_keeps_what_it_finds(self, step: Step) -> None:
        Path(step.folder).mkdir(parents=True)
        self.write(step, "put there by a person")
        step.submit()
        assert Path(step.folder, "checkpoint", "state").exists()


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
