"""The payload starts where it was put, wherever it was written to be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.jobs.bundle import run_files
from dagster_slurm_components.jobs.job_spec import job_spec
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.resource import ComputeResource


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(
    "where", ["train.py", "deep/er/train.py", "../beside/train.py", "../../far/train.py"]
)
def test_the_payload_starts_where_it_lies(tmp_path: Path, where: str, absolute: bool) -> None:
    folder = tmp_path / "a" / "project" / "code"
    payload = Path(os.path.normpath(folder / where))
    payload.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    payload.touch()
    script = {"payload": str(payload) if absolute else where}
    resolved = ComputeResource(profile="local", project=str(folder)).resolve(script, folder)
    spec = job_spec(resolved, JobIdentity("run", "step"), activation=Activation())
    started = spec.launch.payload[-1]
    assert [str(path) for path in spec.files] == [started]
    assert not started.startswith(("/", ".."))


@pytest.mark.parametrize("sampled", [True, False])
def test_a_profile_says_whether_its_jobs_are_sampled(tmp_path: Path, sampled: bool) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "local.yaml").write_text("pool: slurm\n" if sampled else "sampler: false\n")
    script = ComputeResource(profile="local", project=str(tmp_path)).resolve({"command": ["true"]}, tmp_path)
    files = run_files(job_spec(script, JobIdentity("run", "step"), activation=Activation()))
    assert ("sampler/sample.sh" in files) == ("usage/0.jsonl" in files) == sampled
