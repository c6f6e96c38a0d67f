"""Jobs: bundle, submit, watch, reconcile, cancel. Knows neither Dagster nor YAML."""
