"""Dagster Pipes over a run directory: context out, messages and log lines back."""
