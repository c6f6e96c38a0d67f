"""Jobs that waiting alone won't start: told at once, cancelled when their time is up."""

import time
from collections.abc import Callable

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.slurm.reasons import Permanence, Reason, explain
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.retry import Stuck
from dagster_slurm_components.units import format_duration


class StuckError(DagsterSlurmError):
    """A job waited for something that would not come, for so many seconds."""

    def __init__(self, reason: Reason, permanence: Permanence, seconds: float) -> None:
        self.reason = reason
        never = "never starts" if permanence == "never" else "starts only when a person acts"
        super().__init__(
            f"The job {never} ({reason.name}): {reason.text} It was cancelled after {format_duration(seconds)}.",
            hint=f"`stuck.{permanence}` says how long such a job is left in the queue.",
        )


class StuckTimer:
    """Measures how long a job has been stuck, by a monotonic clock, in seconds."""

    def __init__(self, policy: Stuck, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy, self._clock = policy, clock
        self._since: float | None = None
        self._was_fit = False

    def check(self, observation: Observation) -> StuckError | None:
        """Return the error to end with, once the job has been stuck for longer than the policy allows."""
        reason = explain(observation.reason) if observation.reason else None
        permanence = self._permanence(reason) if reason and observation.phase is Phase.WAITING else "wait"
        limit = {"never": self._policy.never, "held": self._policy.held}.get(permanence)
        if limit is None or reason is None:
            self._since = None
            return None
        now = self._clock()
        self._since = now if self._since is None else self._since
        stuck = now - self._since
        return StuckError(reason, permanence, stuck) if stuck >= duration_seconds(limit) else None

    def _permanence(self, reason: Reason) -> Permanence:
        """Return what a reason means for this job.

        A job that only waited before was fit to run. What it lacks now an administrator took away, or slurmctld can't
        see while slurmdbd is down (InvalidAccount and InvalidQOS, 20.11 to 26.05), and both come back.
        """
        self._was_fit = self._was_fit or (reason.permanence == "wait" and reason.name != "None")
        heals = reason.permanence == "never" and reason.name != "DependencyNeverSatisfied" and self._was_fit
        return "held" if heals else reason.permanence
