"""Dagster's private parts: what this package takes of them is imported below ``private_parts``, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dagster_slurm_components.errors import DagsterSlurmError


@contextmanager
def private_parts(difference: str, instead: str = "") -> Iterator[None]:
    """Import names that Dagster may move with any release; where one is not, say so, and what to do.

    Args:
        difference: What is other in a Dagster without these names, in words: "stores outputs in another way".
        instead: What a user can do without them, if anything.

    Raises:
        DagsterSlurmError: This Dagster does not have them.
    """
    try:
        yield
    except ImportError as error:
        or_else = f", or {instead}" if instead else ""
        raise DagsterSlurmError(
            f"dagster {dg.__version__} {difference} than 1.13 did: {error}",
            hint=f'Install a version that this one was made for (pip install "dagster>=1.13,<2"){or_else}.',
        ) from error
