"""``dg-slurm check``: every YAML document of a project, before anything is queued."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import click

from dagster_slurm_components.cli.terminal import near, print_json
from dagster_slurm_components.component.project import is_script_component
from dagster_slurm_components.spec.problems import Problem, SpecError
from dagster_slurm_components.spec.project import Report, check_project


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--profile", "profiles", multiple=True, help="Check scripts in this profile only; may be repeated."
)
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How problems are told; github: as annotations of a pull request.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
def check(paths: tuple[Path, ...], profiles: tuple[str, ...], strict: bool, form: str, as_json: bool) -> None:
    """Check all YAML of a project: components, included scripts, profiles, sites.

    PATHS are files and folders; by default the current folder. Exits with 0 if all is right, 1 if there are errors, 2
    if it could not check.
    """
    try:
        report = check_project(paths or (Path(),), profiles=profiles, is_subclass=is_script_component)
    except SpecError as exc:
        raise click.UsageError(str(exc)) from None
    if not report.files and not report.problems:
        where = ", ".join(str(path.resolve()) for path in paths or (Path(),))
        raise click.UsageError(
            f"There is nothing to check in {where}: no defs.yaml, and no YAML in profiles/ or sites/."
        )
    report = replace(report, problems=tuple(_shown(problem, strict) for problem in report.problems))
    _FORMATS["json" if as_json else form](report)
    sys.exit(1 if report.count("error") else 0)


def _shown(problem: Problem, strict: bool) -> Problem:
    """Name the file as a user would from here; make a warning an error if asked to."""
    where = problem.position and replace(problem.position, file=near(problem.position.file))
    return replace(problem, level="error" if strict else problem.level, position=where)


def _text(report: Report) -> None:
    for problem in report.problems:
        first, _, rest = str(problem).partition("\n")
        place = str(problem.position or "")
        told = first.removeprefix(f"{place}: ")
        colour = "red" if problem.level == "error" else "yellow"
        mark = "" if problem.level == "error" else f"{problem.level}: "
        start = f"{click.style(place, bold=True)}: " if place else ""
        click.echo(f"{start}{mark}{click.style(told, fg=colour)}")
        if rest:
            click.echo(rest)
    counts = [_plural(report.files, "file"), _plural(report.scripts, "script")]
    found = [_plural(report.count(level), level) for level in ("error", "warning") if report.count(level)]
    click.echo(f"checked {', '.join(counts)}: {', '.join(found) or 'all right'}")


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _json(report: Report) -> None:
    nowhere = dict.fromkeys(("file", "line", "column"))
    problems = []
    for problem in report.problems:
        about = asdict(problem)
        where = about.pop("position") or nowhere
        problems.append({**where, **about})
    print_json({"files": report.files, "scripts": report.scripts, "problems": problems})


def _github(report: Report) -> None:
    for problem in report.problems:
        where = problem.position
        place = {"file": where.file, "line": str(where.line), "col": str(where.column)} if where else {}
        properties = {**place, "title": "dg-slurm check"}
        told = f"{problem.message}\n{problem.hint}" if problem.hint else problem.message
        text = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
        click.echo(f"::{problem.level} {text}::{_escaped(told)}")


def _escaped(text: str, more: str = "") -> str:
    """Escape text for a workflow command, as GitHub's runner reads it."""
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


_FORMATS: Mapping[str, Callable[[Report], None]] = {"text": _text, "json": _json, "github": _github}
