"""The process whose end is the end of a run, told from any other on any machine."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass

from dagster_slurm_components.hosts.satellite.processes import identify, pid_namespace


@dataclass(frozen=True)
class Owner:
    """The process whose end is the end of a run.

    Attributes:
        node: Name of its machine.
        pid_namespace: Where its number means something: containers share a machine's name and boot, not its processes.
        start: Tells it from a later process of that number, and from one before the machine's last boot.
    """

    run_id: str
    node: str
    pid_namespace: str
    pid: int
    start: str

    @classmethod
    def of(cls, run_id: str, pid: int) -> Owner:
        """Return a process of this machine as an owner."""
        return cls(run_id, os.uname().nodename, pid_namespace(), pid, identify([pid]).get(pid, ""))

    def known_dead(self) -> bool:
        """Whether it ran on this machine, in this PID namespace, and is gone; of others nothing is known."""
        here = (os.uname().nodename, pid_namespace())
        return (self.node, self.pid_namespace) == here and identify([self.pid]).get(self.pid) != self.start


def this_owner(run_id: str, *, step_worker: bool) -> Owner:
    """Return the process whose end is the end of this run: this one, or the parent of a step's own process."""
    # Not getppid(): with the start method `forkserver` that is the server, which outlives no run but says so later.
    parent = multiprocessing.parent_process()
    pid = parent.pid if step_worker and parent is not None and parent.pid else os.getpid()
    return Owner.of(run_id, pid)
