"""YAML into Dagster definitions."""
