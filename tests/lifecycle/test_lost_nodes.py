"""A node's slurmd is killed under a job; the controller can't write. The cluster is this module's own, for other tests'
jobs would be hit too."""

from __future__ import annotations

import signal
from pathlib import Path

import dagster as dg
import pytest
from cluster_fixture import find_node, lose_node
from lifecycle.test_outcomes import MARKS, began, meanwhile, scripts
from project_fixture import Project, failure_text
from waiting import eventually

import slurm_testcluster as slurm
from dagster_slurm_components.jobs.reconcile import Patience
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.status import parse_starts

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def marks(project: Project, lab: slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(SlurmScheduler, "patience", Patience(absence=5.0))
    for name in ("look", "max_age"):  # an hour's waiting in a minute
        monkeypatch.setattr(SlurmScheduler, name, 2.0)
    project.staging(lab)
    profile = project.root / "profiles" / "staging.yaml"
    profile.write_text(f"{profile.read_text()}limits: {{queries_per_minute: 60}}\n")
    folder = project.root / "marks"
    folder.mkdir()
    project.write("marks.py", MARKS)
    return folder


def node_of(lab: slurm.Cluster, job: str) -> str:
    return lab.run(["squeue", "-h", "-o", "%N", "-j", job]).stdout.strip()


def nodes(project: Project) -> list[list[str | None]]:
    """Return the nodes of each start, by attempt."""
    files = sorted((project.root / "cluster work" / "runs").rglob("status"))
    return [[start.get("nodes") for start in parse_starts(file.read_bytes())] for file in files]


def test_a_slurmd_that_comes_back_has_cost_nothing(
    project: Project, lab: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    scripts(project, marks)

    def act() -> None:
        job = began(marks)
        daemon = f"slurmd-{node_of(lab, job)}"
        lab.stop_daemon(daemon, number=signal.SIGKILL)
        lab.start_daemon(daemon)
        assert lab.run(["squeue", "-h", "-o", "%T", "-j", job]).stdout.strip() == "RUNNING"
        (marks / "gate").touch()

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    assert [len(starts) for starts in nodes(project)] == [1]


@pytest.mark.parametrize("requeue", [True, False], ids=["requeued", "another attempt"])
def test_a_node_that_is_lost_costs_a_start(
    project: Project, lab: slurm.Cluster, instance: dg.DagsterInstance, marks: Path, requeue: bool
) -> None:
    """Slurm begins the job anew elsewhere, or a further attempt leaves the node out; the first start goes on all the
    while, as nobody is left on its node to end it."""
    scripts(
        project,
        marks,
        more="    retry: {node_fail: {attempts: 1}}\n",
        resources=f'time: "00:10:00", requeue: {str(requeue).lower()}',
    )
    lost: list[str] = []

    def act() -> None:
        lost.append(node_of(lab, began(marks)))
        lose_node(lab, lost[0])
        if requeue:
            began(marks, restart=1)
        else:
            began(marks, attempt=1)
        (marks / "gate").touch()

    try:
        with meanwhile(act):
            result = project.run("staging", instance=instance)
    finally:
        for node in lost:
            find_node(lab, node)
    assert result.success, failure_text(result)
    assert len(result.get_asset_materialization_events()) == 1
    found = nodes(project)
    if requeue:
        ((first, second),) = found
    else:
        ((first,), (second,)) = found
    assert first == lost[0]
    assert second not in (None, first)
    said = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert ("`retry.node_fail` answers with attempt 1" in said) is not requeue
    assert (f"with exclude {lost[0]}" in said) is not requeue


def test_a_controller_that_can_not_store_scripts_is_waited_for(
    project: Project, lab: slurm.Cluster, instance: dg.DagsterInstance, marks: Path
) -> None:
    """As on a full disk: where slurmctld keeps the scripts of jobs are files instead of folders."""
    project.write("t.sh", "true")
    project.scripts("scripts: [{payload: t.sh, assets: [{key: a}]}]")
    state = lab.folder / "spool" / "ctld"
    folders = [state / f"hash.{number}" for number in range(10)]
    aside = state / "aside"
    aside.mkdir()
    for folder in folders:
        if folder.exists():
            folder.rename(aside / folder.name)
        folder.touch()

    def act() -> None:
        runs = project.root / "cluster work" / "runs"
        refused = lambda: any("rejected=" in file.read_text() for file in runs.rglob("ledger"))  # noqa: E731
        try:
            eventually(refused, "sbatch refused the job")
        finally:
            for folder in folders:
                folder.unlink()
                if (aside / folder.name).exists():
                    (aside / folder.name).rename(folder)

    with meanwhile(act):
        result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    said = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert "I/O error writing script/environment to file" in said
    assert "its disk is full: tell the site. It is tried again." in said
