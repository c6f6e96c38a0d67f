"""``dg-slurm data``: the inputs of scripts on a profile's host: see them, bring them, remove them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.component.needs import script_name
from dagster_slurm_components.component.project import project_scripts
from dagster_slurm_components.data.host.download import shown
from dagster_slurm_components.data.local import read_content
from dagster_slurm_components.data.provide import Provider
from dagster_slurm_components.data.store import InputStore
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.inputs import Input
from dagster_slurm_components.spec.profiles import LoadedProfile, load_profile
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.templates import is_template
from dagster_slurm_components.units import format_size, parse_size

_INPUT: terminal.Columns = {"script": "script", "input": "input", "source": "source"}


@dataclass(frozen=True)
class _Wanted:
    """An input of a script."""

    script: ResolvedScript
    name: str
    given: Input

    @property
    def row(self) -> dict[str, object]:
        source, is_url = self.given.source, self.given.file is None and self.given.asset is None
        told = shown(source) if is_url and not is_template(source) else source
        return {"script": script_name(self.script), "input": self.name, "source": told}

    @property
    def folder(self) -> Path:
        """Where its relative path starts."""
        return self.script.base("inputs", self.name, "source")

    @property
    def later(self) -> str:
        """Why nothing can be said of it before its step runs, if that is so."""
        if is_template(self.given.source):
            return "known when it runs"
        return "is made by an asset" if self.given.asset is not None else ""


def _opened(profile_name: str | None) -> tuple[LoadedProfile, InputStore]:
    loaded = load_profile(profile_name, start=Path.cwd())
    place = target(loaded)
    return loaded, InputStore(place.satellite, place.workdir, loaded.profile.input_cache.most)


def _wanted(loaded: LoadedProfile) -> Iterator[_Wanted]:
    for script in project_scripts(Path.cwd(), loaded.name):
        resolved = script.entry.resolve(loaded)
        for name, given in resolved.script.inputs.items():
            yield _Wanted(resolved, name, given)


@click.group(cls=terminal.Group)
def data() -> None:
    """The inputs of scripts: what they read, what is on the host, bringing and removing it."""


@data.command()
@terminal.profile_and_json
def plan(profile_name: str | None, as_json: bool) -> None:
    """Show what the scripts read, what is there, and what would be sent or fetched. Changes nothing."""
    loaded, store = _opened(profile_name)
    sources = {each["source"] for each in store.call("list", {})["trees"]}
    rows = [{**each.row, **_planned(each, loaded, store, sources)} for each in _wanted(loaded)]
    columns: terminal.Columns = {**_INPUT, "state": "state", "to send": lambda row: _size(row["to_send"])}
    terminal.print_rows(rows, columns, as_json=as_json, empty="no script has inputs")


def _planned(
    wanted: _Wanted, loaded: LoadedProfile, store: InputStore, sources: set[str]
) -> dict[str, object]:
    if wanted.later:
        return {"state": wanted.later, "to_send": None}
    if wanted.given.file is None:
        there = wanted.row["source"] in sources
        return {"state": "there, and asked for anew" if there else "to be fetched", "to_send": None}
    content = read_content(wanted.folder / Path(wanted.given.file).expanduser(), wanted.given.source)
    if isinstance(loaded.profile.host, LocalHost):
        return {"state": "read where it is", "to_send": 0}
    if store.ready(store.tree(content.key, content.name)) is not None:
        return {"state": "ready", "to_send": 0}
    lacking = store.lacking(content)
    state = f"{len(lacking)} of {len(content.files)} files are missing"
    return {"state": state, "to_send": sum(each.size for each in lacking)}


@data.command()
@terminal.profile_and_json
def fetch(profile_name: str | None, as_json: bool) -> None:
    """Bring what the scripts read to the host now: what is sent or fetched here is there when their steps run."""
    loaded, store = _opened(profile_name)
    rows = []
    with terminal.patient(store.satellite) as satellite:
        there = InputStore(satellite, store.workdir, store.bound)

        def tell(text: str) -> None:
            if not as_json:
                click.echo(text, err=True)

        for each in _wanted(loaded):
            if not each.later:
                account = each.script.script.resources.account
                provider = Provider(there, loaded, account, tell, lambda: None, sure=True)
                found = provider.provide(each.name, each.given, each.folder)
                rows.append({**each.row, "path": found.path, "hash": found.hash})
    terminal.print_rows(rows, {**_INPUT, "path": "path"}, as_json=as_json, empty="there is nothing to bring")


@data.command("list")
@terminal.profile_and_json
def list_(profile_name: str | None, as_json: bool) -> None:
    """List the inputs on the host, with sizes and last use."""
    found = _opened(profile_name)[1].call("list", {})
    if as_json:
        terminal.print_json(found)
        return
    columns: terminal.Columns = {
        "input": "name",
        "key": lambda row: row["key"][:12],
        "source": "source",
        "size": lambda row: _size(row["bytes"]),
        "files": "count",
        "made": lambda row: terminal.moment(row["made"]),
        "last used": lambda row: terminal.moment(row["used"]),
        "by jobs": lambda row: "now" if row["in_use"] else "",
    }
    latest = sorted(found["trees"], key=lambda row: float(row["used"] or row["made"]), reverse=True)
    terminal.print_rows(latest, columns, as_json=False, empty="no inputs are there")
    click.echo(f"all files: {_size(found['bytes'])}, {found['inodes']} inodes")


@data.command()
@terminal.profile_and_json
@click.option(
    "--unused-for",
    callback=terminal.seconds,
    help="Remove what no job used for so long (30d).  [default: the profile's retention]",
)
@click.option("--max", "most", help="Remove what was not used for longest until so much is left (500G).")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(
    profile_name: str | None, as_json: bool, unused_for: float | None, most: str | None, dry_run: bool
) -> None:
    """Remove inputs that no job used lately; those of jobs that wait or run stay."""
    bound = parse_size(most, default_unit="M") if most else None
    if most and bound is None:
        raise click.BadParameter(f"{most!r} is no size such as 500G")
    loaded, store = _opened(profile_name)
    if unused_for is None and bound is None:
        unused_for = duration_seconds(loaded.profile.retention.inputs)
    order: dict[str, object] = {"keep": [], "unused_for": unused_for, "most": bound, "dry_run": dry_run}
    found = store.call("prune", order)
    if as_json:
        terminal.print_json(found)
        return
    verb = "would go" if dry_run else "removed"
    rows = [[name, key[:12], verb, _size(size)] for key, name, size in found["removed"]]
    rows += [["", key[:12], f"kept: {why}", ""] for key, why in found["kept"].items()]
    terminal.table(["input", "key", "what", "size"], rows)
    click.echo(f"profile {loaded.name}: {_size(found['freed'])} freed")


def _size(size: int | None) -> str:
    return "" if size is None else format_size(size)
