"""``dg-slurm env``: the environments of a profile: see them, make them, check them, remove them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dagster_slurm_components.cli.project import project_scripts
from dagster_slurm_components.cli.terminal import errors_told, json_option, profile_option, seconds, table
from dagster_slurm_components.environments.content import EnvironmentPlan, Progress, Request, silent
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.provide import is_content, plan_for, provide, request_for
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.profiles import load_profile


@dataclass(frozen=True)
class Need:
    """An environment that scripts of the project need in this profile.

    Attributes:
        request: What is asked for.
        scripts: Names of the scripts.
    """

    request: Request[Any]
    scripts: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """What every command works with."""

    store: Store
    folder: Path
    profile: str
    unused_for: float
    park_timeout: float

    def needs(self) -> list[Need]:
        """Return the different environments that the project's scripts need."""
        loaded = load_profile(self.profile, start=self.folder)
        found: dict[str, Need] = {}
        for script in project_scripts(self.folder, self.profile):
            resolved = script.entry.resolve(loaded)
            environment = resolved.script.environment
            if not is_content(environment):
                continue
            request = request_for(resolved)
            paths = [str(request.base(name)) for name in type(environment).model_fields]
            key = json.dumps([environment.model_dump(mode="json"), paths])
            names = found[key].scripts if key in found else ()
            found[key] = Need(request, (*names, _name(resolved.script)))
        return list(found.values())


def _name(script: Any) -> str:
    return str(script.name or script.payload or " ".join(script.command or ["?"]))


_folder_option = click.option(
    "--project",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="The project's folder.  [default: here]",
)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    return profile_option(_folder_option(json_option(command)))


@contextmanager
def _context(profile_name: str | None, folder: Path) -> Iterator[Context]:
    with errors_told():
        loaded = load_profile(profile_name, start=folder)
        place = target(loaded)
        store = Store(place.satellite, place.workdir, loaded.name)
        unused = duration_seconds(loaded.profile.retention.environments)
        yield Context(store, folder, loaded.name, unused, duration_seconds(loaded.profile.park_timeout))


@click.group()
def env() -> None:
    """The environments of a profile: what scripts need, what is on the host, making and removing it."""


@env.command()
@_common
def plan(profile_name: str | None, folder: Path, as_json: bool) -> None:
    """Show what the scripts need, what is there, and what would be sent. Changes nothing."""
    with _context(profile_name, folder) as context:
        rows = [_planned(context, need, plan_for(need.request, context.store)) for need in context.needs()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    shown = [
        [
            row["name"],
            row["key"][:12],
            row["kind"],
            str(len(row["packages"])),
            row["state"],
            f"{row['to_send']} of {row['files']}",
            _megabytes(row["bytes_to_send"]),
            ", ".join(row["scripts"]),
        ]
        for row in rows
    ]
    columns = ["environment", "key", "type", "packages", "state", "files to send", "MB to send", "scripts"]
    table(columns, shown)


def _planned(context: Context, need: Need, planned: EnvironmentPlan) -> Mapping[str, Any]:
    there = context.store.published(planned.key) is not None
    missing = [] if there else context.store.lacking(planned.artifacts)
    return {
        "name": planned.name,
        "key": planned.key,
        "kind": planned.kind,
        "platform": str(planned.platform),
        "python": planned.interpreter.path if planned.interpreter else None,
        "packages": dict(planned.packages),
        "state": "ready" if there else "missing",
        "files": len(planned.artifacts),
        "to_send": len(missing),
        "bytes_to_send": sum(artifact.size or 0 for artifact in missing),
        "scripts": list(need.scripts),
    }


@env.command()
@_common
def build(profile_name: str | None, folder: Path, as_json: bool) -> None:
    """Fetch and build on this machine all that a deployment sends, so that it needs no internet then."""
    rows: list[dict[str, Any]] = []
    with _context(profile_name, folder) as context, _progress(as_json) as progress:
        for need in context.needs():
            planned = plan_for(need.request, context.store, progress)
            files = fetch(planned.artifacts, progress)
            rows.append(
                {"name": planned.name, "key": planned.key, "bytes": sum(file.size or 0 for file in files)}
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        table(
            ["environment", "key", "MB here"],
            [[r["name"], r["key"][:12], _megabytes(r["bytes"])] for r in rows],
        )


@env.command()
@_common
@click.option("--rebuild", is_flag=True, help="Make environments anew that are there already.")
@click.option(
    "--wait",
    callback=seconds,
    help="How long a lost host is waited for (10m).  [default: the profile's park_timeout]",
)
def deploy(profile_name: str | None, folder: Path, as_json: bool, rebuild: bool, wait: float | None) -> None:
    """Make on the host all environments that the project's scripts need; for production, in CI."""
    rows: list[dict[str, Any]] = []

    def tell(text: str) -> None:
        if not as_json:
            click.echo(text, err=True)

    with _context(profile_name, folder) as context, _progress(as_json) as progress:
        patience = context.park_timeout if wait is None else wait
        for need in context.needs():
            made = provide(
                need.request, context.store, progress=progress, tell=tell, rebuild=rebuild, patience=patience
            )
            rows.append(
                {
                    "name": made.manifest["name"],
                    "key": made.manifest["key"],
                    "state": made.state,
                    "sent": made.sent,
                    "seconds": round(made.seconds, 3),
                    "folder": made.folder,
                    "scripts": list(need.scripts),
                }
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    shown = [
        [
            row["name"],
            row["key"][:12],
            row["state"],
            _megabytes(row["sent"]),
            f"{row['seconds']:.1f}",
            row["folder"],
        ]
        for row in rows
    ]
    table(["environment", "key", "state", "MB sent", "seconds", "folder"], shown)


@env.command("list")
@_common
def list_(profile_name: str | None, folder: Path, as_json: bool) -> None:
    """List the environments on the host, with sizes and last use."""
    with _context(profile_name, folder) as context:
        found = context.store.inventory()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        [
            each["name"],
            each["key"][:12],
            each["kind"],
            str(each["packages"]),
            _megabytes(each["bytes"]),
            str(each["inodes"]),
            _day(each["created"]),
            _day(each["used"]),
        ]
        for each in sorted(found["environments"], key=lambda each: float(each["used"]), reverse=True)
    ]
    table(["environment", "key", "type", "packages", "MB", "files", "made", "last used"], rows)
    click.echo(f"store: {_megabytes(found['store_bytes'])} MB, {found['store_inodes']} files")


@env.command()
@_common
@click.option(
    "--mode",
    type=click.Choice(["names", "full"]),
    default="full",
    show_default=True,
    help="What is compared.",
)
def verify(profile_name: str | None, folder: Path, as_json: bool, mode: Any) -> None:
    """Compare every environment on the host with what it was published with. Exits with 1 if one differs."""
    with _context(profile_name, folder) as context:
        found = context.store.verify(mode=mode)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for key, lines in found.items():
            click.echo(f"{key[:12]}: {'as published' if not lines else f'{len(lines)} differences'}")
            click.echo("".join(f"  {line}\n" for line in lines), nl=False)
    sys.exit(1 if any(found.values()) else 0)


@env.command()
@_common
@click.option(
    "--unused-for",
    callback=seconds,
    help="Remove what no job used for so long (30d).  [default: the profile's retention]",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(
    profile_name: str | None, folder: Path, as_json: bool, unused_for: float | None, dry_run: bool
) -> None:
    """Remove environments that no script of the profile needs, no job uses, and nobody used lately."""
    with _context(profile_name, folder) as context:
        unused = context.unused_for if unused_for is None else unused_for
        keep = [plan_for(need.request, context.store).key for need in context.needs()]
        found = context.store.prune(keep, unused_for=unused, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    verb = "would go" if dry_run else "removed"
    rows = [[name, key[:12], verb, _megabytes(size)] for key, name, size in found["removed"]]
    rows += [["", key[:12], f"kept: {why}", ""] for key, why in found["kept"].items()]
    table(["environment", "key", "what", "MB"], rows)
    click.echo(f"store: {_megabytes(found['freed'])} MB freed")


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """Yield what shows progress: a bar on a terminal, nothing otherwise."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console  # noqa: PLC0415 -- 0.1 s, and for terminals only
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description:>8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=done, total=total or None)

        yield show


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _day(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch))
