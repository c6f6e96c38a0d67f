"""Which processes belong to a cluster: its daemons, their jobs, and what is left of either."""

from __future__ import annotations

import os

from slurm_testcluster.daemons import DAEMON_MARK, running, waves
from slurm_testcluster.layout import Layout
from slurm_testcluster.process import (
    Identity,
    all_pids,
    descendants,
    environment,
    identify,
    sees_file_as,
)


def members(layout: Layout) -> list[Identity]:
    """Find all processes of a cluster.

    A job's processes outlive slurmd, and may have left their process group, so three marks count:
    descent from one of our daemons; seeing our hosts file as /etc/hosts, which the namespaces of our
    daemons alone do; and the variables that slurmstepd gives to a job of ours.
    """
    daemons = [daemon for wave in waves(layout, find=lambda name: name) for daemon in wave]
    alive = [identity for daemon in daemons if (identity := running(daemon, layout))]
    pids = {identity.pid for identity in alive}
    pids |= {pid for pid in all_pids() if _is_marked(pid, layout)}
    found = descendants(pids) - {os.getpid()}
    return [identity for pid in sorted(found) if (identity := identify(pid))]


def _is_marked(pid: int, layout: Layout) -> bool:
    if layout.isolated and sees_file_as(pid, "/etc/hosts", layout.hosts):
        return True
    variables = environment(pid)
    # A person's shell may have exported SLURM_CONF: that alone makes nothing ours.
    ours = f"SLURM_CONF={layout.slurm_conf}".encode() in variables
    return ours and any(
        variable.startswith((b"SLURM_JOB_ID=", DAEMON_MARK.encode())) for variable in variables
    )
