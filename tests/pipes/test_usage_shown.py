"""What is shown of a job's usage: pictures where enough was seen, notes where it asked for too much of Slurm."""

from __future__ import annotations

import re
from typing import Any

import pytest
from project_fixture import Project
from usage_fixture import node

from dagster_slurm_components.component.project import project_scripts
from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.reconcile import Evidence, Observation
from dagster_slurm_components.pipes.advice import advice, pictures
from dagster_slurm_components.pipes.context import Partition
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.run_override import run_override

FIGURES: dict[str, Any] = {
    "job/id": "7",
    "job/state": "COMPLETED",
    "job/elapsed_s": 3600.0,
    "job/memory_max_mib": 6144.0,
    "job/cpus_busy": 1.0,
}
SCRIPTS = """
defaults: {resources: {cpus_per_task: 16}}
scripts:
  - command: ["true"]
    resources:
      mem: 256G
    assets: [{key: a}]
"""


@pytest.mark.parametrize(("profile", "count"), [("there", 2), ("local", 0)])
def test_notes_name_the_line_below_the_project(project: Project, profile: str, count: int) -> None:
    project.profile("there", "scheduler: slurm\n")
    file = project.scripts(SCRIPTS).relative_to(project.root)
    (script,) = project_scripts(project.root, profile)
    resolved = script.entry.resolve(load_profile(profile, start=project.root))
    told: list[str] = []
    made = advice(FIGURES, resolved, Partition(), tell=told.append)
    said = [
        f"used 6 of 256 GiB: `mem: 10G` would do ({file}:8)",
        f"1 of 16 CPUs used: `cpus_per_task: 1` would do ({file}:4)",
    ][:count]
    assert told == [f"Job 7: {text}" for text in said]
    assert made.get("job/notes", "") == "\n".join(f"* {text}" for text in said)


def test_what_a_run_asked_for_is_in_no_file(project: Project) -> None:
    project.profile("there", "scheduler: slurm\n")
    project.scripts(SCRIPTS)
    (script,) = project_scripts(project.root, "there")
    run = run_override({"resources": {"mem": "512G", "cpus_per_task": 1}}, {})
    resolved = script.entry.resolve(load_profile("there", start=project.root, run=run))
    made = advice(FIGURES, resolved, Partition(), tell=lambda text: None)
    (where,) = re.findall(r"^\* used 6 of 512 GiB: `mem: 10G` would do \((.*)\)$", str(made["job/notes"]))
    assert "config" in where
    assert ":0" not in where


def test_pictures_of_what_was_seen() -> None:
    ended = Ended(Observation(), Evidence(), (node(),))
    assert set(pictures(ended, {"job/queue_wait_s": 3})) == {"job/usage", "job/chart"}
    assert pictures(Ended(Observation(), Evidence()), {}) == {}
