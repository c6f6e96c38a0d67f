"""The list of the leases on which somebody may still have to act, and the attempts at a call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from lease_fixture import BUNDLE, LONG_AGO, Step, claim

from dagster_slurm_components.hosts.satellite import leases
from dagster_slurm_components.jobs.lease import parse_lease


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
