"""Fixtures of the whole suite."""

import os
import shutil
import tempfile

pytest_plugins = ["agent_fixture", "cluster_fixture", "framework_venvs", "project_fixture"]

# An agent outlives the test that starts it: tests of the agent switch it on and end it themselves.
os.environ["DAGSTER_SLURM_AGENT"] = "off"

# What processes without an agent tell each other must not come from, or reach, the developer's own.
FOLDER = os.environ["DAGSTER_SLURM_AGENT_DIR"] = tempfile.mkdtemp(prefix="dsa-", dir="/tmp")


def pytest_unconfigure() -> None:
    """Remove it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
