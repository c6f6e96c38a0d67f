"""Tags that more than one layer reads; to import them loads nothing that runs jobs."""

LEFT = "slurm/left"
"""Of a run that left jobs to the sensor: the profile's name. Also of the observations that a step makes of them."""
