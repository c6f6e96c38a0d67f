"""A lease is changed by compare-and-set, and reading is a sign of life."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lease_fixture import LONG_AGO, OURS, THEIRS, Step

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.satellite import leases
from dagster_slurm_components.hosts.satellite.calls import FileRead, LeaseRenewal
from dagster_slurm_components.hosts.satellite.locks import locked

STATES = ("following", "cancel wanted", "cancelled", "ended", "collected", "left", "reporting")
ALLOWED = {
    "following": {"cancel wanted", "cancelled", "ended", "left"},
    "left": {"cancel wanted", "reporting"},
    "reporting": {"collected", "ended", "cancelled"},
    "cancel wanted": {"cancelled", "ended"},
    "ended": {"collected", "cancelled"},
    "cancelled": set(),
    "collected": set(),
}


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

    def test_the_variables_of_a_job_that_was_killed_go_with_its_lease(self, step: Step) -> None:
        step.submit()
        folder = Path(step.run_dir())
        files = [folder / "job.env", *(folder / "elements" / name / "job.env" for name in ("1", "20"))]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("export TOKEN=secret\n")
        assert step.change()[0]
        assert all(file.exists() for file in files)
        assert step.change(state="ended", outcome="TIMEOUT")[0]
        assert not any(file.exists() for file in files)

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
        before = time.time()
        step.renew()
        assert before - 1 <= step.lease()["renewed"] <= time.time() + 1

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

        def full(path: bytes, value: Any, **how: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(leases, "write_json", full)
        assert here.renew(shown={"offsets": {"stdout.log": 5}}) == (1, "following")
        assert (here.lease()["renewed"], here.lease()["shown"]) == (LONG_AGO, {})
