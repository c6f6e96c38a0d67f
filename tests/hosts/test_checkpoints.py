"""A checkpoint is for another attempt at the same content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lease_fixture import Step, claim

from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.satellite import leases
from dagster_slurm_components.hosts.satellite.calls import LeaseRequest


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
