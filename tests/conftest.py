"""Fixtures of the whole suite."""

pytest_plugins = ["cluster_fixture", "framework_venvs", "project_fixture"]
