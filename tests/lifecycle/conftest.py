"""One `dg dev` for each module: it takes ten seconds to start."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from lifecycle.dev import Dev
from lifecycle.stories import PAYLOAD, PLAIN, scripts
from project_fixture import make_project

import slurm_testcluster as slurm

# Ten moments of each signal and each kind of process take ten minutes: `make test-long` runs them.
collect_ignore = [] if os.environ.get("DAGSTER_SLURM_LONG_TESTS") else ["test_all_moments.py"]

SENSOR = """
    from pathlib import Path
    from dagster_slurm_components import slurm_jobs_sensor

    healer = slurm_jobs_sensor(project=Path(__file__).parent, minimum_interval_seconds=5)
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, cluster: slurm.Cluster) -> Iterator[Dev]:
    """A `dg dev` with the sensor, whose scripts run on the cluster."""
    project = make_project(tmp_path_factory.mktemp("lifecycle") / "my project")
    project.staging(cluster)
    project.write("waits.py", PAYLOAD)
    project.write("plain.py", PLAIN)
    project.scripts(scripts())
    project.write("../healer.py", SENSOR)  # beside the folder, whose Python files a component owns
    with Dev.running(project, "staging", cluster) as made:
        yield made
