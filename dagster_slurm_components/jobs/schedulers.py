"""Who runs the job script: a plain process or Slurm. The two answer the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..hosts.client import Process, Satellite, SubmitRequest
from ..slurm.accounting import AccountingRow, parse_sacct, sacct, sacct_by_name
from ..slurm.control import scancel
from ..slurm.header import render_header
from ..slurm.queue import QueueRow, parse_squeue, squeue, squeue_by_name
from ..slurm.replies import query_failure
from ..slurm.submit import AMBIGUOUS, JOB_ID, sbatch
from .cadence import query_interval
from .model import JobHandle, JobSpec
from .reconcile import Patience

_QUERY_TIMEOUT = 60.0
_COMMAND_TIMEOUT = 60.0
_VISIBLE = 30.0
"""Seconds within which a job that sbatch made shows in queue or accounting."""


class Scheduler(Protocol):
    """Runs job scripts and knows about them.

    Attributes:
        name: As in a profile.
        metered: Whether its queries count against the host's budget.
        has_accounting: Whether ended jobs can be looked up.
        first_query: Seconds after a change until the queue is first asked.
        patience: How long silences are waited out.
    """

    name: str
    metered: bool
    has_accounting: bool
    first_query: float
    patience: Patience

    def header(self, spec: JobSpec, run_dir: str) -> str:
        """Return what stands above the body of ``job.sh``."""
        ...

    def request(self, spec: JobSpec, run_dir: str) -> SubmitRequest:
        """Return what the satellite is asked to do with the bundle."""
        ...

    def queue(self, satellite: Satellite, handles: Sequence[JobHandle]) -> Mapping[str, QueueRow] | None:
        """Return the queue's rows of these jobs, or nothing when it could not be asked."""
        ...

    def accounting(
        self, satellite: Satellite, handles: Sequence[JobHandle]
    ) -> Mapping[str, AccountingRow] | None:
        """Return the accounting's rows of these jobs, or nothing when it could not be asked."""
        ...

    def cancel(self, satellite: Satellite, handles: Sequence[JobHandle]) -> None:
        """Ask for the end of exactly these jobs."""
        ...

    def query_interval(self, asked: int, *, waiting: bool) -> float:
        """Return the seconds until the queue is asked again."""
        ...
