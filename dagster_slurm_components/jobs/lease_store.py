"""The leases on a host: read, and changed by who knows their epoch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.lease import (
    Attempt,
    Lease,
    OutputPosition,
    Owner,
    parse_attempt,
    parse_lease,
)


@dataclass(frozen=True)
class LeaseStore:
    """The leases below a profile's working folder. Each call may raise what ``Host.call`` raises."""

    satellite: Satellite
    workdir: str

    def attempts(self, folder: str) -> list[Attempt]:
        """Return the attempts at a call, in order."""
        return [parse_attempt(files) for files in self.satellite.attempts(folder)]

    def open(self) -> tuple[list[Attempt], float]:
        """Return the attempts on which somebody may still have to act, and the host's clock: one call."""
        attempts, now = self.satellite.open_leases(self.workdir)
        return [parse_attempt(files) for files in attempts], now

    def take(self, attempt: Attempt, owner: Owner, *, state: str | None = None) -> Lease | None:
        """Take a job over: its epoch grows, and who followed it is refused from now on.

        With a ``state`` it goes to that in the same moment. Returns the lease, or nothing where somebody else has
        changed it since the attempt was read.
        """
        owned = asdict(owner)
        return self._change(attempt.run_dir, attempt.lease.epoch, state=state, owner=owned)

    def change(
        self,
        run_dir: str,
        epoch: int,
        state: str,
        *,
        outcome: str | None = None,
        shown: OutputPosition | None = None,
    ) -> Lease | None:
        """Go to another state; return the lease, or nothing where the epoch is another's by now."""
        written = None if shown is None else asdict(shown)
        finished = None if outcome is None else time.time()
        return self._change(run_dir, epoch, state=state, outcome=outcome, finished=finished, shown=written)

    def _change(self, run_dir: str, epoch: int, **changes: Any) -> Lease | None:
        changed, raw = self.satellite.change_lease(run_dir, self.workdir, epoch, **changes)
        return parse_lease(raw) if changed else None
