"""A real Slurm on one Debian or Ubuntu machine, for tests and first steps.

Everything of a cluster lies in one folder, runs as the calling user and listens on loopback only. No
privileges are needed, except for installing the Debian packages.
"""

from __future__ import annotations

from slurm_testcluster.control import Cluster, default_folder, down, status, up
from slurm_testcluster.errors import ClusterError, ClusterUnavailableError
from slurm_testcluster.status import ClusterStatus

__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterStatus",
    "ClusterUnavailableError",
    "default_folder",
    "down",
    "status",
    "up",
]
