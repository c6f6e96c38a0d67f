"""Fixtures of the whole suite."""

import os

pytest_plugins = ["agent_fixture", "cluster_fixture", "framework_venvs", "project_fixture"]

# An agent outlives the test that starts it: tests of the agent switch it on and end it themselves.
os.environ["DAGSTER_SLURM_AGENT"] = "off"
