"""Dagster executor: steps that wait for jobs are threads of the run's process, all others processes of their own."""
