"""The example's larger assets, with real PyTorch and real Ray: the same YAML on this machine and on two nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import pytest
from examples.test_digits_runs import Project, project  # noqa: F401 - a fixture

from slurm_testcluster import Cluster

EPOCHS, TRIALS = 10, 9


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.parametrize(("profile", "ranks", "nodes"), [("local", 2, 1), ("staging", 4, 2)])
def test_training_and_sweep(
    project: Project,  # noqa: F811
    cluster: Cluster,
    torch_venv: Path,
    ray_venv: Path,
    profile: str,
    ranks: int,
    nodes: int,
):
    project.dg(
        "launch",
        "--assets",
        "+group:scale_out",
        DAGSTER_SLURM_PROFILE=profile,
        DAGSTER_SLURM_CLUSTER=str(cluster.folder),
        DIGITS_ENV=sys.prefix,
        DIGITS_TORCH_ENV=str(torch_venv),
        DIGITS_RAY_ENV=str(ray_venv),
    )
    report = project.newest_report()
    assert report.succeeded, report.errors
    found = {asset.key: asset for asset in report.assets}
    assert sorted(found) == ["digits/network", "digits/split", "digits/sweep"]

    network = found["digits/network"]
    assert (network.payload["ranks"], network.payload["nodes"]) == (ranks, nodes)
    assert network.checks == {"network_accuracy_at_least_95": True}
    assert str(network.payload["epochs"]).count("\n") == 1 + EPOCHS
    sweep = found["digits/sweep"]
    assert (sweep.payload["nodes"], sweep.payload["cpus"]) == (nodes, 2 * nodes)
    assert float(str(sweep.payload["test_accuracy"])) > 0.95
    assert str(sweep.payload["trials"]).count("\n") == 1 + TRIALS

    with dg.DagsterInstance.from_config(str(project.home)) as instance:
        run = instance.get_runs(limit=1)[0]
        logged = [entry.user_message for entry in instance.all_logs(run.run_id)]
    epochs = [text for text in logged if text.startswith("epoch ")]
    trials = [text for text in logged if text.startswith("trial ")]
    assert (len(epochs), len(trials)) == (EPOCHS, TRIALS), logged
