"""Twenty scripts at once, each in a process of its own, against an sshd with its usual limits."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from project_fixture import Project
from waiting import eventually

import slurm_testcluster as slurm

COUNT = 20


@dataclass(frozen=True)
class Logins:
    """Counts a project's own logins: other tests log in to the same sshd at the same time."""

    log: Path
    fingerprint: str

    def count(self) -> int:
        """Return how often this project's key was accepted."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum("Accepted publickey" in line and self.fingerprint in line for line in lines)


def own_key(project: Project, cluster: slurm.Cluster) -> Logins:
    """Let the project log in with a key of its own, by which sshd's log tells its logins from all others."""
    key = project.root / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with (cluster.folder / "ssh" / "authorized_keys").open("a") as authorized:
        authorized.write(key.with_suffix(".pub").read_text())
    profile = project.root / "profiles" / "staging.yaml"
    text, replaced = re.subn(r"key_file: .*", lambda _: f'key_file: "{key}"', profile.read_text())
    assert replaced == 1
    profile.write_text(text)
    shown = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True).stdout
    return Logins(cluster.folder / "log" / "sshd.log", shown.split()[1])


def twenty_scripts(project: Project, cluster: slurm.Cluster, command: str) -> Logins:
    """Write a project of twenty scripts for the cluster."""
    project.staging(cluster)
    scripts = "\n".join(
        f"  - {{command: {command}, assets: [{{key: many_{number}}}], name: many_{number}}}"
        for number in range(COUNT)
    )
    project.scripts(f"scripts:\n{scripts}\n")
    return own_key(project, cluster)


def jobs_of(project: Project, home_name: str) -> set[str]:
    """Return the jobs of the one run of twenty scripts in a home, all of which ended well.

    They are asked of the instance, for many processes and threads write over each other on one stderr.
    """
    with dg.DagsterInstance.from_config(str(project.root / home_name)) as instance:
        (run,) = instance.get_runs()
        steps = instance.get_run_step_stats(run.run_id)
        made = instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
    assert [step.status.value for step in steps] == ["SUCCESS"] * COUNT
    return {str(m.metadata["job/id"].value) for r in made if (m := r.event_log_entry.asset_materialization)}


@pytest.mark.slurm
@pytest.mark.slow
def test_twenty_scripts_in_one_multiprocess_run(project: Project, cluster: slurm.Cluster) -> None:
    logins = twenty_scripts(project, cluster, "[sleep, '2']")
    config = '{"execution": {"config": {"multiprocess": {"max_concurrent": 20}}}}'
    project.dg("launch", "--assets", "*", "--config-json", config, profile="staging")
    ids = jobs_of(project, "dagster home")
    assert len(ids) == COUNT
    known = ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(ids)]
    eventually(lambda: len(cluster.run(known).stdout.split()) == COUNT, "the accounting knows all")
    # At most one login a process; helpers of Dagster that run no step make none.
    assert 0 < logins.count() <= COUNT


@pytest.mark.slurm
@pytest.mark.slow
def test_four_runs_of_twenty_scripts_at_once_make_one_login(
    project: Project, cluster: slurm.Cluster, agent_folder: Path
) -> None:
    """F03: the agent owns the one connection, whoever asks."""
    logins = twenty_scripts(project, cluster, "['true']")
    config = '{"execution": {"config": {"in_process": {}}}}'

    # A home for each: four programs that set up one SQLite storage at once get in each other's way.
    homes = [f"dagster home {number}" for number in range(4)]

    def launch(home: str) -> None:
        args = ("launch", "--assets", "*", "--config-json", config)
        project.dg(*args, profile="staging", home_name=home)

    with ThreadPoolExecutor(len(homes)) as pool:
        list(pool.map(launch, homes))
    ids = set().union(*(jobs_of(project, home) for home in homes))
    assert len(ids) == len(homes) * COUNT
    assert logins.count() == 1
