"""How many tasks a job array may have: asked of the cluster, once a process."""

import threading

from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.slurm.arrays import (
    MAX_ARRAY_SIZE,
    QOS_LIMITS,
    parse_max_array_size,
    submit_limit,
    user_limits,
)
from dagster_slurm_components.spec.resolve import ResolvedScript

_MOST = 10_000
"""Elements of one array. Each has files of its own, which travel in one message."""
_answers: dict[tuple[str, ...], str] = {}
_lock = threading.Lock()


def largest_array(place: Target, resolved: ResolvedScript) -> int:
    """Return how many elements an array of a script may have; 0 where the site allows none.

    Slurm counts each task against the limits of account, QOS and user, and so against the profile's
    ``max_submit_jobs``.
    """
    limits = [_MOST, resolved.profile.profile.limits.max_submit_jobs]
    if isinstance(place.scheduler, SlurmScheduler):
        size = parse_max_array_size(_ask(place, MAX_ARRAY_SIZE))
        # Without accounting there is neither an answer nor a limit.
        asked, user = resolved.script.resources, place.satellite.hello().user
        limits += [size, submit_limit(_ask(place, user_limits(user)), asked.account)]
        limits += [submit_limit(_ask(place, QOS_LIMITS), asked.qos)] if asked.qos else []
        if size == 0:
            return 0
    return min(limit for limit in limits if limit)


def _ask(place: Target, command: tuple[str, ...]) -> str:
    """Return the answer of a cluster; nothing where the command failed."""
    key = (place.satellite.host.name, *command)
    with _lock:
        if key not in _answers:
            done = place.satellite.run(command, timeout=60.0)
            _answers[key] = done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
        return _answers[key]
