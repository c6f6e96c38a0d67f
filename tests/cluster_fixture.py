"""One real Slurm for the whole suite: a session fixture that all pytest-xdist workers share.

Each worker holds a lock on a file of its own while it uses the cluster. The kernel drops that lock when a
worker crashes, so the last one out is whoever finds no other lock held; what a killed run left behind is
removed by the next run.

Use it with ``pytest_plugins = ["cluster_fixture"]`` in the root conftest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from waiting import eventually

import slurm_testcluster as slurm
from slurm_testcluster.lock import folder_lock

PREFIX = "dg-slurm-test-"
REQUIRED = os.environ.get("DAGSTER_SLURM_REQUIRE_SLURM") == "1"


def start_or_skip(folder: Path, *, accounting: bool = True) -> slurm.Cluster:
    """Bring a cluster up; where that can't be, skip, or fail if DAGSTER_SLURM_REQUIRE_SLURM=1."""
    try:
        return slurm.up(folder, install=REQUIRED, accounting=accounting)
    except slurm.ClusterUnavailableError as error:
        if REQUIRED:
            raise
        pytest.skip(f"no Slurm here: {error}")


def run_folder() -> Path:
    """Return the folder that all workers of this test run share (short: Unix sockets lie in it)."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"pid{os.getpid()}")
    return Path(tempfile.gettempdir()).resolve() / f"{PREFIX}{run[:12]}"


@contextmanager
def shared_cluster(root: Path) -> Iterator[slurm.Cluster]:
    """Use the cluster in ``root`` together with other processes; the last one takes it down."""
    with folder_lock(root):
        mine = _join(root)
    try:
        yield start_or_skip(root / "cluster")
    finally:
        with folder_lock(root):
            os.close(mine)
            _clean_if_unused(root)


def _join(root: Path) -> int:
    users = root / "users"
    users.mkdir(exist_ok=True)
    descriptor, _ = tempfile.mkstemp(dir=users)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _clean_if_unused(root: Path) -> None:
    """Take the cluster down and remove the folder, unless someone uses it; hold the folder's lock."""
    users = root / "users"
    if any(_is_locked(user) for user in (users.iterdir() if users.exists() else ())):
        return
    slurm.down(root / "cluster")
    shutil.rmtree(root)


def _is_locked(file: Path) -> bool:
    with file.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def sweep(parent: Path) -> None:
    """Remove the clusters of test runs that were killed."""
    for root in parent.glob(PREFIX + "*"):
        with suppress(FileNotFoundError):
            if root.stat().st_uid == os.getuid():
                with folder_lock(root):
                    _clean_if_unused(root)


def lose_node(cluster: slurm.Cluster, node: str) -> None:
    """Kill a node's slurmd, and let Slurm give the node up at once instead of after minutes without an answer."""
    cluster.stop_daemon(f"slurmd-{node}", number=signal.SIGKILL)
    # An answer of slurmd's that is on its way yet would bring it back (seen in 26.05.5), hence DRAIN, too.
    for state in ("DOWN", "DRAIN"):
        cluster.run(["scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=no answer"])


def find_node(cluster: slurm.Cluster, node: str) -> None:
    """Bring a lost node back, and wait until Slurm takes it for good."""
    cluster.start_daemon(f"slurmd-{node}")
    cluster.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"])
    asked = ["sinfo", "--noheader", "--nodes", node, "--format", "%T"]
    eventually(lambda: cluster.run(asked).stdout.strip() in ("idle", "mixed", "allocated"), f"{node} is back")


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm.Cluster]:
    """A real Slurm with four nodes, shared by the whole test run."""
    root = run_folder()
    sweep(root.parent)
    with shared_cluster(root) as shared:
        yield shared


@pytest.fixture(scope="module")
def lab() -> Iterator[slurm.Cluster]:
    """A cluster of one module's own, for what would hit others too."""
    with _private() as made:
        yield made


@pytest.fixture(scope="module")
def unaccounted() -> Iterator[slurm.Cluster]:
    """A cluster of one module's own that keeps no accounts."""
    with _private(accounting=False) as made:
        yield made


@contextmanager
def _private(*, accounting: bool = True) -> Iterator[slurm.Cluster]:
    with tempfile.TemporaryDirectory(prefix="dg-slurm-") as parent:
        folder = Path(parent).resolve() / "lab"
        try:
            yield start_or_skip(folder, accounting=accounting)
        finally:
            slurm.down(folder)
