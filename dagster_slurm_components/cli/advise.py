"""``dg-slurm advise``: what scripts should ask for instead, by what their last jobs used, as a patch of their YAML."""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagster_slurm_components.cli.terminal import json_option, near, print_json, profile_option
from dagster_slurm_components.component.project import chosen, project_scripts
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.edit import replaced
from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.problems import did_you_mean
from dagster_slurm_components.spec.profiles import load_profile, profile_names
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.source import read_text
from dagster_slurm_components.spec.templates import is_template

if TYPE_CHECKING:
    import dagster as dg

    from dagster_slurm_components.component.specs import SlurmScript

Figures = Mapping[str, Any]
_LEAST = ("job/gpus_idle",)
_SHARED = ("defaults", "#SBATCH")


@dataclass(frozen=True)
class Advice:
    """A note on what a script's jobs asked for, by all of them together.

    Attributes:
        runs: How many jobs say the same by themselves, of ``of``.
        where: Where the value to change is written; ``not_in_patch`` says why it is none of the patch, if so.
    """

    script: str
    profile: str
    note: str
    option: str | None
    value: str | None
    runs: int
    of: int
    where: Position | None
    not_in_patch: str


@click.command()
@click.argument("assets", nargs=-1, metavar="[ASSET]...")
@profile_option
@click.option("--last", default=10, show_default=True, type=click.IntRange(1), help="Jobs of each asset.")
@json_option
def advise(assets: tuple[str, ...], profile_name: str | None, last: int, as_json: bool) -> None:
    """Say what scripts should ask for instead, by what their last jobs used, and print a patch of the YAML.

    ASSET is an asset's key; without one, all scripts are looked at. Dagster has the figures of past jobs, so
    DAGSTER_HOME is needed. Nothing is changed: `dg-slurm advise | git apply` would. What is said goes to stderr,
    the patch to stdout.
    """
    from dagster_slurm_components.pipes.reexecute import opened_instance  # noqa: PLC0415 -- a second

    scripts = _chosen(project_scripts(Path.cwd(), profile_name), assets)
    with opened_instance() as instance:
        found = [each for script in scripts for each in _advice(instance, script, profile_name, last)]
    patch = "".join(_patch(found))
    if as_json:
        print_json({"advice": [asdict(each) for each in found], "patch": patch})
        return
    for each in found:
        why = f"; not in the patch: {each.not_in_patch}" if each.not_in_patch else ""
        said = f"{each.script} ({each.profile}, {each.runs} of {each.of} runs): {each.note}{why}"
        click.echo(said, err=True)
    click.echo(patch, nl=False)


def _chosen(scripts: Sequence[SlurmScript], assets: Sequence[str]) -> list[SlurmScript]:
    made = {spec.key.to_user_string(): script for script in scripts for spec in script.assets}
    for asset in assets:
        if asset not in made:
            raise DagsterSlurmError(
                f"no script in YAML makes `{asset}`", hint=did_you_mean(asset, list(made))
            )
    return [script for script in scripts if not assets or any(made[asset] is script for asset in assets)]


def _advice(
    instance: dg.DagsterInstance, script: SlurmScript, profile_name: str | None, last: int
) -> Iterator[Advice]:
    from dagster_slurm_components.pipes.advice import notes_on, sentence  # noqa: PLC0415

    jobs: dict[str, list[Figures]] = {}
    for figures in _figures(instance, script, last):
        jobs.setdefault(str(figures["job/profile"]), []).append(figures)
    wanted = set(profile_names(script.folder)) if profile_name is None else {profile_name}
    keys = any(spec.partitions_def is not None for spec in script.assets)
    for profile in sorted(wanted & jobs.keys()):
        with chosen(profile):
            resolved = script.entry.resolve(load_profile(start=script.folder))
        alone = [{note.option for note in notes_on(each, resolved, keys=keys)} for each in jobs[profile]]
        for note in notes_on(_together(jobs[profile]), resolved, keys=keys):
            yield Advice(
                script.name,
                profile,
                sentence(note, resolved),
                note.option,
                note.value,
                runs=sum(note.option in options for options in alone),
                of=len(alone),
                where=resolved.position("resources", note.option) if note.option else None,
                not_in_patch=_why_not(resolved, note.option) if note.option else "",
            )


def _figures(instance: dg.DagsterInstance, script: SlurmScript, last: int) -> Iterable[Figures]:
    """Return the figures of a script's last jobs, each once: a job may make several assets."""
    found: dict[Any, Figures] = {}
    for spec in script.assets:
        for record in instance.fetch_materializations(spec.key, limit=last).records:
            made = record.asset_materialization
            figures = {name: value.value for name, value in made.metadata.items()} if made else {}
            if "job/run_directory" in figures and "job/profile" in figures:
                found[figures["job/run_directory"]] = figures
    return found.values()


def _together(jobs: Sequence[Figures]) -> Figures:
    """Return figures that are enough for all jobs: the most of each; waits differ too much for that."""
    known: dict[str, list[float]] = {}
    for figures in jobs:
        for name, value in figures.items():
            if isinstance(value, int | float):
                known.setdefault(name, []).append(value)
    most: dict[str, Any] = {name: min(each) if name in _LEAST else max(each) for name, each in known.items()}
    if "job/queue_wait_s" in known:
        most["job/queue_wait_s"] = statistics.median(known["job/queue_wait_s"])
    return {**most, "job/state": "COMPLETED"}


def _why_not(resolved: ResolvedScript, option: str) -> str:
    path = ("resources", option)
    layer = resolved.merged.source(path)
    if layer is None or layer.name in _SHARED or layer in resolved.profile.layers:
        return f"it is written in {layer.name if layer else 'no file'}, for other scripts too"
    return "it is a template" if is_template(str(layer.as_written(path))) else ""


def _patch(found: Sequence[Advice]) -> Iterator[str]:
    """Yield a unified diff of each file that would change."""
    edits: dict[str, dict[Position, str]] = {}
    for each in found:
        if each.where is not None and each.value is not None and not each.not_in_patch:
            edits.setdefault(each.where.file, {}).setdefault(each.where, each.value.strip('"'))
    for file, values in sorted(edits.items()):
        before = after = read_text(Path(file))
        for at in sorted(values, reverse=True):  # from the end: what stands before it stays where it is
            after = replaced(after, at, values[at]) or after
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
        yield from difflib.unified_diff(old, new, f"a/{near(file)}", f"b/{near(file)}")
