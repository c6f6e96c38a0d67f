"""Each night, in production: run directories and environments that nobody needs any more are removed."""

import os
from pathlib import Path

import dagster as dg
from dagster_slurm_components import slurm_maintenance

IN_PRODUCTION = os.environ.get("DAGSTER_SLURM_PROFILE") == "production"

defs = dg.Definitions(
    schedules=[
        slurm_maintenance(
            project=Path(__file__).parent,
            default_status=dg.DefaultScheduleStatus.RUNNING if IN_PRODUCTION else dg.DefaultScheduleStatus.STOPPED,
        )
    ]
)
