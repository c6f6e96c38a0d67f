"""Fixtures of the doctor's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dagster_slurm_components.doctor.examine import examine
from dagster_slurm_components.doctor.findings import Finding
from dagster_slurm_components.hosts.base import Host
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.profile import Profile
from dagster_slurm_components.spec.profiles import LoadedProfile


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., dict[str, Finding]]:
    """Examine a profile with these fields; return the findings by check, the worst one of each."""

    def run(*, at: Host | None = None, **fields: object) -> dict[str, Finding]:
        profile = Profile.model_validate({"workdir": str(tmp_path / "work dir"), **fields})
        layer = Layer("profile", {"resources": fields.get("resources", {})}, lambda path: None)
        found: dict[str, Finding] = {}
        for finding in examine(LoadedProfile("test", profile, (layer,), tmp_path), host=at):
            if finding.check not in found or finding.is_failure:
                found[finding.check] = finding
        return found

    return run
