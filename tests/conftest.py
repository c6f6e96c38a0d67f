"""Fixtures of the whole suite."""

import os
import shutil
import signal
import subprocess
import tempfile

import pytest

pytest_plugins = ["agent_fixture", "cluster_fixture", "framework_venvs", "project_fixture", "wheel_fixture"]

# A shell that starts something in the background has it ignore SIGINT. Dagster then ignores SIGTERM, too, and so does
# the `tail` by which it captures output: it would wait for that for ever (dagster 1.13).
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An agent outlives the test that starts it: tests of the agent switch it on and end it themselves.
os.environ["DAGSTER_SLURM_AGENT"] = "off"

# What processes without an agent tell each other must not come from, or reach, the developer's own.
FOLDER = os.environ["DAGSTER_SLURM_AGENT_DIR"] = tempfile.mkdtemp(prefix="dsa-", dir="/tmp")


NEEDS = {
    "cluster": "slurm",
    "lab": "slurm",
    "unaccounted": "slurm",
    "sshd_factory": "ssh",
    "pam_sshd": "ssh",
    "torch_venv": "frameworks",
    "ray_venv": "frameworks",
    "notebooks_venv": "frameworks",
    "tables_venv": "frameworks",
}
"""What a test needs that asks for a fixture."""

SHARED = ("unaccounted", "lab", "dev", "lab_folder")
"""Fixtures of a module that cost a cluster or a `dg dev`: its tests stay on one worker (`--dist loadgroup`)."""


@pytest.fixture(scope="session")
def unshare() -> list[str]:
    """The command that runs another in a PID namespace of its own, as a container does; it takes that along."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("no new PID namespace can be made here")
    return command


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they ask for, so that `make test-fast` can't meet one that needs more than Python."""
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        for fixture in asked & NEEDS.keys():
            item.add_marker(NEEDS[fixture])
        for fixture in [name for name in SHARED if name in asked][:1]:
            item.add_marker(pytest.mark.xdist_group(f"{fixture} of {item.path.name}"))
        if "built" in asked:
            item.add_marker(pytest.mark.xdist_group("built"))


def pytest_unconfigure() -> None:
    """Remove it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
