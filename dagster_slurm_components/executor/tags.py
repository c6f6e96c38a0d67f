"""The tag that says where a step is executed."""

STEP_TAG = "slurm/step"
THREAD = "thread"
"""Value of the tag for a step that mostly waits: it is executed as a thread of the run's process."""
