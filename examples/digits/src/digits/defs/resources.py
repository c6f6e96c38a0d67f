"""The resource of all Python assets, bound once: Dagster refuses two files that each bind one of the same name."""

import dagster as dg

from dagster_slurm_components import ComputeResource

defs = dg.Definitions(resources={"compute": ComputeResource()})
