"""Twenty scripts at once, each in a process of its own, against an sshd with its usual limits."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from project_fixture import Project

from dagster_slurm_components import cluster as slurm

COUNT = 20


@pytest.mark.slurm
@pytest.mark.slow
def test_twenty_scripts_in_one_multiprocess_run(project: Project, cluster: slurm.Cluster) -> None:
    project.staging(cluster)
    scripts = "\n".join(
        f"  - {{command: [sleep, '2'], assets: [{{key: many_{number}}}], name: many_{number}}}"
        for number in range(COUNT)
    )
    project.scripts(f"scripts:\n{scripts}\n")
    log = cluster.folder / "log" / "sshd.log"
    before = log.read_text(errors="replace").count("Accepted publickey") if log.exists() else 0
    config = '{"execution": {"config": {"multiprocess": {"max_concurrent": 20}}}}'
    project.dg("launch", "--assets", "*", "--config-json", config, profile="staging")
    # Asked of the instance: twenty processes write over each other on one stderr.
    with dg.DagsterInstance.from_config(str(project.root / "dagster home")) as instance:
        (run,) = instance.get_runs()
        steps = instance.get_run_step_stats(run.run_id)
        made = instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
    assert [step.status.value for step in steps] == ["SUCCESS"] * COUNT
    ids = {str(m.metadata["job/id"].value) for r in made if (m := r.event_log_entry.asset_materialization)}
    assert len(ids) == COUNT
    rows = cluster.run(["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(ids)]).stdout
    assert len(rows.split()) == COUNT
    logins = log.read_text(errors="replace").count("Accepted publickey") - before
    # At most one login a process; helpers of Dagster that run no step make none.
    assert 0 < logins <= COUNT


@pytest.mark.slurm
@pytest.mark.slow
def test_four_runs_of_twenty_scripts_at_once_make_one_login(
    project: Project, cluster: slurm.Cluster, agent_folder: Path
) -> None:
    """F03: the agent owns the one connection, whoever asks."""
    project.staging(cluster)
    scripts = "\n".join(
        f"  - {{command: ['true'], assets: [{{key: many_{number}}}], name: many_{number}}}"
        for number in range(COUNT)
    )
    project.scripts(f"scripts:\n{scripts}\n")
    log = cluster.folder / "log" / "sshd.log"
    before = log.read_text(errors="replace").count("Accepted publickey") if log.exists() else 0
    config = '{"execution": {"config": {"in_process": {}}}}'

    def launch(number: int) -> str:
        # A home for each: four programs that set up one SQLite storage at once get in each other's way.
        args = ("launch", "--assets", "*", "--config-json", config)
        done = project.dg(*args, profile="staging", check=False, home_name=f"dagster home {number}")
        return done.stdout + done.stderr

    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(launch, range(4)))
    for text in texts:
        assert len(set(re.findall(r"many_\d+ - STEP_SUCCESS", text))) == COUNT, text[-4000:]
    ids = {job for text in texts for job in re.findall(r"Job (\d+) submitted", text)}
    assert len(ids) == 4 * COUNT
    assert log.read_text(errors="replace").count("Accepted publickey") - before == 1
