"""The project's definitions: everything below ``defs/``."""

from pathlib import Path

import dagster as dg

from dagster_slurm_components import ComputeResource, slurm_executor


@dg.definitions
def defs() -> dg.Definitions:
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    ours = dg.Definitions(executor=slurm_executor, resources={"compute": ComputeResource()})
    return dg.Definitions.merge(found, ours)
