"""Tags that more than one layer reads; to import them loads nothing that runs jobs."""

LEFT = "slurm/left"
"""Of a run that left jobs to the sensor: the profile's name. Also of the observations that a step makes of them."""
MAY_LEAVE = "slurm/may_leave"
"""Of an op that may leave its job, so that none of its outputs is required: a JSON list of the assets that its payload
may leave out. Dagster (1.13) takes all of them for skippable."""
