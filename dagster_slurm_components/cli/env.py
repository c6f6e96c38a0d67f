"""``dg-slurm env``: the environments of a profile: see them, make them, check them, remove them."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.component.needs import Need, needs
from dagster_slurm_components.component.needs import prune as remove_unneeded
from dagster_slurm_components.environments.content import EnvironmentPlan
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.provide import plan_for, provide
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.profiles import LoadedProfile, load_profile


def _opened(profile_name: str | None) -> tuple[LoadedProfile, Store]:
    loaded = load_profile(profile_name, start=Path.cwd())
    place = target(loaded)
    return loaded, Store(place.satellite, place.workdir, loaded.name)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _day(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch))


_NAMED: terminal.Columns = {"environment": "name", "key": lambda row: row["key"][:12]}


@click.group(cls=terminal.Group)
def env() -> None:
    """The environments of a profile: what scripts need, what is on the host, making and removing it."""


@env.command()
@terminal.profile_and_json
def plan(profile_name: str | None, as_json: bool) -> None:
    """Show what the scripts need, what is there, and what would be sent. Changes nothing."""
    loaded, store = _opened(profile_name)
    rows = [_planned(store, need, plan_for(need.request, store)) for need in needs(loaded, Path.cwd())]
    columns: terminal.Columns = {
        **_NAMED,
        "type": "kind",
        "packages": lambda row: len(row["packages"]),
        "state": "state",
        "files to send": lambda row: f"{row['to_send']} of {row['files']}",
        "MB to send": lambda row: _megabytes(row["bytes_to_send"]),
        "scripts": lambda row: ", ".join(row["scripts"]),
    }
    terminal.print_rows(rows, columns, as_json=as_json, empty="no script needs an environment of its own")


def _planned(store: Store, need: Need, planned: EnvironmentPlan) -> terminal.Row:
    there = store.published(planned.key) is not None
    missing = [] if there else store.lacking(planned.artifacts)
    return {
        **{name: getattr(planned, name) for name in ("name", "key", "kind")},
        "platform": str(planned.platform),
        "python": planned.interpreter.path if planned.interpreter else None,
        "packages": dict(planned.packages),
        "state": "ready" if there else "missing",
        "files": len(planned.artifacts),
        "to_send": len(missing),
        "bytes_to_send": sum(artifact.size or 0 for artifact in missing),
        "scripts": need.scripts,
    }


@env.command()
@terminal.profile_and_json
def build(profile_name: str | None, as_json: bool) -> None:
    """Fetch and build on this machine all that a deployment sends, so that it needs no internet then."""
    rows: list[terminal.Row] = []
    loaded, store = _opened(profile_name)
    with terminal.bar(quiet=as_json) as progress:
        for need in needs(loaded, Path.cwd()):
            planned = plan_for(need.request, store, progress)
            size = sum(file.size or 0 for file in fetch(planned.artifacts, progress))
            rows.append({"name": planned.name, "key": planned.key, "bytes": size})
    terminal.print_rows(rows, {**_NAMED, "MB here": lambda row: _megabytes(row["bytes"])}, as_json=as_json)


@env.command()
@terminal.profile_and_json
@click.option("--rebuild", is_flag=True, help="Make environments anew that are there already.")
@click.option(
    "--wait",
    callback=terminal.seconds,
    help="How long a lost host is waited for (10m).  [default: the profile's park_timeout]",
)
def deploy(profile_name: str | None, as_json: bool, rebuild: bool, wait: float | None) -> None:
    """Make on the host all environments that the project's scripts need; for production, in CI."""
    rows: list[terminal.Row] = []

    def tell(text: str) -> None:
        if not as_json:
            click.echo(text, err=True)

    loaded, store = _opened(profile_name)
    patience = duration_seconds(loaded.profile.park_timeout) if wait is None else wait
    with terminal.bar(quiet=as_json) as progress:
        for need in needs(loaded, Path.cwd()):
            made = provide(
                need.request, store, progress=progress, tell=tell, rebuild=rebuild, patience=patience
            )
            row = {
                **{name: made.manifest[name] for name in ("name", "key")},
                **{name: getattr(made, name) for name in ("state", "sent", "seconds", "folder")},
            }
            rows.append({**row, "seconds": round(made.seconds, 3), "scripts": need.scripts})
    columns: terminal.Columns = {
        **_NAMED,
        "state": "state",
        "MB sent": lambda row: _megabytes(row["sent"]),
        "seconds": lambda row: f"{row['seconds']:.1f}",
        "folder": "folder",
    }
    terminal.print_rows(rows, columns, as_json=as_json)


@env.command("list")
@terminal.profile_and_json
def list_(profile_name: str | None, as_json: bool) -> None:
    """List the environments on the host, with sizes and last use."""
    found = _opened(profile_name)[1].inventory()
    if as_json:
        terminal.print_json(found)
        return
    columns: terminal.Columns = {
        **_NAMED,
        **{"type": "kind", "packages": "packages"},
        "MB": lambda row: _megabytes(row["bytes"]),
        "files": "inodes",
        "made": lambda row: _day(row["created"]),
        "last used": lambda row: _day(row["used"]),
    }
    if not found["environments"] and sys.stdout.isatty():
        click.echo("no environments; `dg-slurm env deploy` makes those that the scripts need")
        return
    latest = sorted(found["environments"], key=lambda each: float(each["used"]), reverse=True)
    terminal.table(columns, terminal.cells(latest, columns))
    click.echo(f"store: {_megabytes(found['store_bytes'])} MB, {found['store_inodes']} files")


@env.command()
@terminal.profile_and_json
@click.option(
    "--mode",
    type=click.Choice(["names", "full"]),
    default="full",
    show_default=True,
    help="What is compared.",
)
def verify(profile_name: str | None, as_json: bool, mode: Any) -> None:
    """Compare every environment on the host with what it was published with. Exits with 1 if one differs."""
    found = _opened(profile_name)[1].verify(mode=mode)
    if as_json:
        terminal.print_json(found)
    else:
        for key, lines in found.items():
            click.echo(f"{key[:12]}: {'as published' if not lines else f'{len(lines)} differences'}")
            click.echo("".join(f"  {line}\n" for line in lines), nl=False)
    sys.exit(1 if any(found.values()) else 0)


@env.command()
@terminal.profile_and_json
@click.option(
    "--unused-for",
    callback=terminal.seconds,
    help="Remove what no job used for so long (30d).  [default: the profile's retention]",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(profile_name: str | None, as_json: bool, unused_for: float | None, dry_run: bool) -> None:
    """Remove environments that no script needs, no job uses and nobody used lately, and old files of the cache here."""
    loaded, store = _opened(profile_name)
    found = remove_unneeded(loaded, store, Path.cwd(), unused_for, dry_run=dry_run)
    if as_json:
        terminal.print_json(found)
        return
    verb = "would go" if dry_run else "removed"
    rows = [[name, key[:12], verb, _megabytes(size)] for key, name, size in found["removed"]]
    rows += [["", key[:12], f"kept: {why}", ""] for key, why in found["kept"].items()]
    terminal.table(["environment", "key", "what", "MB"], rows)
    freed = f"{_megabytes(found['freed'])} MB freed, {_megabytes(found['cache_freed'])} MB of the cache here"
    click.echo(f"store of profile {loaded.name}: {freed}")
