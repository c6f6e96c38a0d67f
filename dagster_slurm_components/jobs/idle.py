"""Payloads that hang, as far as that can be seen from outside: told once, with the numbers."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from dagster_slurm_components.jobs.events import Watch
from dagster_slurm_components.jobs.live import in_words
from dagster_slurm_components.jobs.meter import LONGEST
from dagster_slurm_components.slurm.states import Phase
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.retry import Idle
from dagster_slurm_components.units import format_duration

_LOOKS = 4
"""How often at least it is looked what a payload uses, in the time that it may be idle."""
_STALE = 3 * LONGEST
"""Seconds after which a sample that no other follows tells nothing any more: its sampler may be gone."""


@dataclass(frozen=True)
class IdleNews:
    """What is to be told of a payload that is silent, and whether it hangs: then it is idle as well."""

    text: str
    hangs: bool
    watch: Watch


class IdleTimer:
    """Says once of each silence that the job hangs, or that nobody can tell."""

    def __init__(
        self, policy: Idle | None, watch: Watch, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._watch, self._clock = watch, clock
        self._limit = duration_seconds(policy.warn) if policy else None
        if self._limit is not None:
            watch.meter.longest = min(LONGEST, max(1.0, self._limit / _LOOKS))
        self._told = False

    def check(self) -> IdleNews | None:
        """Return what there is to tell now."""
        watch, limit, now = self._watch, self._limit, self._clock()
        status = watch.evidence.status
        if (
            limit is None
            or status is None
            or watch.observation.phase is not Phase.RUNNING
            or watch.host_error
        ):
            return None
        silent = now - watch.heard_at
        if silent < limit or self._told:
            self._told = self._told and silent >= limit
            return None
        nodes = watch.meter.nodes
        written = f"Job {watch.handle.job_id} has written nothing for {format_duration(silent)}"
        if len(nodes) < status.nodes or any(now - node.seen > _STALE for node in nodes):
            self._told = True
            why = "Whether it hangs can't be told: what it uses is not known of all its nodes"
            return IdleNews(f"{written}. {why}. It goes on.", hangs=False, watch=watch)
        idle = min(node.idle for node in nodes)
        if idle < limit:
            return None
        self._told = True
        did = f"for {format_duration(idle)} it has computed, read and written nothing"
        return IdleNews(f"{written}, and {did}: {in_words(nodes)}. It may hang.", hangs=True, watch=watch)
