"""The project's definitions: everything below ``defs/``."""

from functools import cache
from pathlib import Path

import dagster as dg
from dagster_slurm_components import slurm_executor


@dg.definitions
@cache  # Dagster calls it six times in a process of `dg launch`
def defs() -> dg.Definitions:
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # Scripts that wait for their jobs are threads of the run's one process; any other step is a process of its own.
    return dg.Definitions.merge(found, dg.Definitions(executor=slurm_executor))
