"""How a range of partitions becomes a job array."""

from dagster_slurm_components.spec.base import Positive
from dagster_slurm_components.spec.model import Model, option


class Array(Model):
    """A job array: each partition of a run over a range is an element, with its own output, metadata and end."""

    max_parallel: Positive | None = option("How many tasks of the array run at a time.", 50)
    keys_per_task: Positive = option(
        "How many partitions each task runs, one after the other; more than one pays off where they take seconds.",
        10,
        default=1,
    )
