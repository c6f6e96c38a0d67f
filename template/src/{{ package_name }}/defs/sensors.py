"""Two sensors: one looks after jobs whose Dagster process died, one tells which clusters are waited for."""

from pathlib import Path

import dagster as dg
from dagster_slurm_components import parked_hosts_sensor, slurm_jobs_sensor

defs = dg.Definitions(sensors=[slurm_jobs_sensor(project=Path(__file__).parent), parked_hosts_sensor()])
