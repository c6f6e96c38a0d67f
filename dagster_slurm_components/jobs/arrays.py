"""How many tasks a job array may have: asked of the cluster, once a process."""

import threading

from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.target import Target
from dagster_slurm_components.slurm.arrays import MAX_ARRAY_SIZE, parse_max_array_size

_MOST = 10_000
"""Elements of one array. Each has files of its own, which travel in one message."""
_sizes: dict[str, int] = {}
_lock = threading.Lock()


def largest_array(place: Target, max_submit_jobs: int | None) -> int:
    """Return how many elements an array may have; 0 where the site allows none.

    ``max_submit_jobs`` is the profile's: Slurm counts each task against it.
    """
    bounds = [_MOST, *([max_submit_jobs] if max_submit_jobs else [])]
    if isinstance(place.scheduler, SlurmScheduler):
        bounds.append(_slurm_size(place))
    return min(bounds)


def _slurm_size(place: Target) -> int:
    where = place.satellite.host.name
    with _lock:
        if where not in _sizes:
            done = place.satellite.run(MAX_ARRAY_SIZE, timeout=60.0)
            _sizes[where] = parse_max_array_size(done.stdout.decode("utf-8", "replace"))
        return _sizes[where]
