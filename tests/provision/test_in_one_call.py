"""A step with an environment that is there makes one call to its host until its job is submitted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from package_fixture import sys_executable
from project_fixture import Project, failure_text

from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.local import InProcessHost

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that are asked of this machine."""
    asked: list[str] = []
    call = InProcessHost.call

    def counted(
        self: InProcessHost,
        op: str,
        params: Mapping[str, Any] | None = None,
        blob: bytes = b"",
        *,
        timeout: float = 60.0,
    ) -> Reply:
        asked.append(op)
        return call(self, op, params, blob, timeout=timeout)

    monkeypatch.setattr(InProcessHost, "call", counted)
    return asked


@pytest.fixture
def packed(project: Project, index: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose one script has an environment that is made from hashed requirements."""
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    wheel = index / "alpha-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    project.write("requirements.txt", f"alpha==1.0 --hash=sha256:{digest}\n")
    project.write("report.py", "import alpha; print('alpha', alpha.VERSION)\n")
    project.scripts(f"""
        defaults: {{environment: {{type: uv, requirements: requirements.txt, python: '{sys_executable()}'}}}}
        scripts:
          - {{payload: report.py, assets: [{{key: report}}]}}
    """)
    place = f"host: {{type: local}}\nscheduler: process\nworkdir: '{project.root}/work'\n"
    project.profile("local", place)
    project.profile("production", place + "environment: {build: deployed}\n")
    return project


def until_submitted(ops: list[str]) -> list[str]:
    return ops[: ops.index("submit") + 1]


def test_a_ready_environment_costs_no_call_of_its_own(
    packed: Project, instance: dg.DagsterInstance, ops: list[str]
):
    assert packed.run("local", instance=instance).success
    assert "run" in until_submitted(ops)  # it was built
    ops.clear()
    assert packed.run("local", instance=instance).success
    assert until_submitted(ops) == ["submit"]


def test_one_that_was_removed_meanwhile_is_made_anew_and_then_the_job_is_submitted(
    packed: Project, instance: dg.DagsterInstance, ops: list[str]
):
    assert packed.run("local", instance=instance).success
    shutil.rmtree(packed.root / "work" / "envs")
    ops.clear()
    result = packed.run("local", instance=instance)
    assert result.success
    assert until_submitted(ops) == ["submit"]
    assert ops.count("submit") == 2
    runs = list((packed.root / "work" / "runs" / result.run_id).glob("*/*/stdout.log"))
    assert [log.read_text() for log in runs] == ["alpha 1.0\n"]


def test_production_refuses_one_that_was_removed_meanwhile(
    packed: Project, instance: dg.DagsterInstance, ops: list[str]
):
    assert packed.run("local", instance=instance).success
    assert packed.run("production", instance=instance).success
    shutil.rmtree(packed.root / "work" / "envs")
    result = packed.run("production", instance=instance)
    assert "dg-slurm env deploy --profile production" in failure_text(result)
    assert list((packed.root / "work" / "runs" / result.run_id).glob("*/*/job.sh")) == []
