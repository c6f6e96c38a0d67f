"""``dg-slurm clean``: removes run directories whose time is up."""

from collections import Counter
from pathlib import Path

import click

from dagster_slurm_components.cli.terminal import json_option, print_json, profile_argument, table
from dagster_slurm_components.jobs.retention import clean as clean_up
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.profiles import load_profile


@click.command()
@profile_argument
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@json_option
def clean(profile_name: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove run directories as the profile's `retention` says.

    Those of jobs that wait or run are never removed. Logs and results in Dagster stay. Environments are removed by
    `dg-slurm env prune`.
    """
    loaded = load_profile(profile_name, start=Path.cwd())
    rows = [
        {"run_directory": verdict.folder.path, "remove": verdict.remove, "why": verdict.why}
        for verdict in clean_up(target(loaded), loaded.profile.retention, dry_run=dry_run)
    ]
    if as_json:
        print_json({"dry_run": dry_run, "run_directories": rows})
        return
    going = [row for row in rows if row["remove"]]
    kept = Counter(row["why"] for row in rows if not row["remove"])
    if going:
        table(["run directory", "why"], [[row["run_directory"], row["why"]] for row in going])
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"profile {loaded.name}: {len(going)} run directories {verb}, {kept.total()} kept")
    for why, number in kept.most_common():
        click.echo(f"  kept {number}: {why}")
