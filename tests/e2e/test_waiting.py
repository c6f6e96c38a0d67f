"""What a person reads in Dagster while a job waits, and beside what it made."""

from __future__ import annotations

import dagster as dg
import pytest
from project_fixture import Project, failure_text

import slurm_testcluster as slurm

pytestmark = pytest.mark.slurm


def test_the_reason_and_the_expected_start_are_logged(
    project: Project, cluster: slurm.Cluster, instance: dg.DagsterInstance
) -> None:
    project.staging(cluster)
    project.scripts(
        """
        scripts:
          - command: ["sleep", "1"]
            resources: {begin: "now+8", cpus_per_task: 2, mem: 100M}
            assets: [{key: patient}]
        """
    )
    result = project.run("staging", instance=instance)
    assert result.success, failure_text(result)
    logged = "\n".join(record.user_message for record in instance.all_logs(result.run_id))
    assert "is PENDING, reason BeginTime: " in logged
    assert "Expected start: 20" in logged
    assert "runs on node" in logged
    metadata = result.get_asset_materialization_events()[0].materialization.metadata
    figures = {name: value.value for name, value in metadata.items()}
    assert figures["job/partition"] == "debug"
    assert str(figures["job/nodes"]).startswith("node")
    assert figures["job/memory_asked_mib"] == 100
    queue_wait, elapsed = figures["job/queue_wait_s"], figures["job/elapsed_s"]
    assert isinstance(queue_wait, float)
    assert queue_wait > 4
    assert isinstance(elapsed, float)
    assert 1 <= elapsed < 60
    assert {"job/id", "job/state", "job/exit_code", "job/host", "job/profile", "job/run_directory",
            "job/node_hours", "job/cpu_efficiency"} <= set(figures)  # fmt: skip
