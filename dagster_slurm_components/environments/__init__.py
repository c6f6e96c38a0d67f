"""Environments: from a spec to the steps of ``activate.sh``. Pure: no I/O, no Dagster."""
