"""Options that several commands share."""

from __future__ import annotations

import click

profile_option = click.option(
    "--profile", "profile_name", help="Name of the profile.  [default: DAGSTER_SLURM_PROFILE, else local]"
)
"""Adds the option that names the profile."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
"""Adds the option for output that programs read."""
