"""``dg-slurm clean``: removes run directories whose time is up."""

from __future__ import annotations

from pathlib import Path

import click

from dagster_slurm_components.cli.terminal import errors_told, json_option, print_json, profile_option, table
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.jobs.records import observed, run_directories
from dagster_slurm_components.jobs.retention import Keep, judge_folders, paths_to_remove
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.profiles import load_profile


@click.command()
@profile_option
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@json_option
def clean(profile_name: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove run directories as the profile's `retention` says.

    Those of jobs that wait or run are never removed. Logs and results in Dagster stay. Environments are removed by
    `dg-slurm env prune`.
    """
    with errors_told():
        loaded = load_profile(profile_name, start=Path.cwd())
        place = target(loaded)
        retention = loaded.profile.retention
        keep = Keep(duration_seconds(retention.success), duration_seconds(retention.failure))
        found = observed(place.satellite, place.scheduler, run_directories(place.satellite, place.workdir))
        verdicts = judge_folders(found, keep, place.satellite.hello().time)
        going = [verdict for verdict in verdicts if verdict.remove]
        top = f"{place.workdir}/runs"
        if not dry_run and place.satellite.read([FileRead(top, 0, 0)])[0].exists:
            place.satellite.remove(top, paths_to_remove(verdicts))
            # Old ones only: a submission may just be making the folders for its own.
            empty = ["-depth", "-type", "d", "-empty", "-mmin", "+60", "-delete"]
            place.satellite.run(["find", top, "-mindepth", "1", *empty], timeout=120.0)
    if as_json:
        listed = [
            {"run_directory": verdict.folder.path, "remove": verdict.remove, "why": verdict.why}
            for verdict in verdicts
        ]
        print_json({"dry_run": dry_run, "run_directories": listed})
        return
    if going:
        table(["run directory", "why"], [[verdict.folder.path, verdict.why] for verdict in going])
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(going)} run directories {verb}, {len(verdicts) - len(going)} kept")
