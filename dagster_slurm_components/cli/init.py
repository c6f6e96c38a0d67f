"""``dg-slurm init``: the first files of something new."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from dagster_slurm_components.cli.terminal import errors_told
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.flow_style import flow_style
from dagster_slurm_components.spec.profiles import (
    known_site,
    load_profile_file,
    profiles_folder,
    project_folder,
)
from dagster_slurm_components.spec.site import LoginWay, Site

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_LONGEST_LINE = 120


@click.group()
def init() -> None:
    """Write the first files of something new."""


@init.command()
@click.argument("name")
@click.option("--site", help="A site whose facts to start from; `dg-slurm sites` lists them.")
@click.option("--hostname", help="Host to connect to.  [default: the site's]")
@click.option("--user", help="User there.  [default: the variable HPC_USER]")
@click.option(
    "--scheduler",
    type=click.Choice(["process", "slurm"]),
    help="Who runs the job script.  [default: slurm on a host, process on this machine]",
)
@click.option("--workdir", help="Folder on the host for run directories and environments.")
@click.option("--force", is_flag=True, help="Write over a profile that exists.")
def profile(name: str, site: str | None, force: bool, **wanted: str | None) -> None:
    """Write profiles/NAME.yaml: where scripts run if DAGSTER_SLURM_PROFILE is NAME.

    Without --site and --hostname it is a profile of this machine.
    """
    with errors_told():
        file = new_profile_file(name, Path.cwd(), force=force)
        facts = known_site(site, Path.cwd()).load() if site else None
        text = profile_text(name, site=site, facts=facts, **wanted)
        before = file.read_bytes() if file.exists() else None
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        try:
            load_profile_file(file, unrendered=True)
        except DagsterSlurmError:
            # What was typed can't stand in a profile: leave things as they were.
            if before is None:
                file.unlink()
            else:
                file.write_bytes(before)
            raise
    click.echo(f"wrote {file}")
    click.echo(f"next: edit it, then `dg-slurm doctor {name}`")


def new_profile_file(name: str, start: Path, *, force: bool) -> Path:
    """Return the file of a new profile.

    Raises:
        DagsterSlurmError: The name can't be a profile's, or there is such a profile.
    """
    if not _NAME.fullmatch(name):
        raise DagsterSlurmError(
            f"{name!r} can't be the name of a profile", hint="Use letters, digits, `-`, `_` and `.`."
        )
    folder = profiles_folder(start) or project_folder(start) / "profiles"
    file = folder / f"{name}.yaml"
    if file.exists() and not force:
        raise DagsterSlurmError("there is such a profile", where=str(file), hint="--force writes over it.")
    return file


def profile_text(
    name: str,
    *,
    site: str | None = None,
    facts: Site | None = None,
    hostname: str | None = None,
    user: str | None = None,
    scheduler: str | None = None,
    workdir: str | None = None,
) -> str:
    """Return the text of a new profile.

    Args:
        name: Its name.
        site: The name of its site.
        facts: What is known of the site.
        hostname: The host; by default the site's.
        user: The user there; by default a template that asks for the variable ``HPC_USER``.
        scheduler: Who runs the job script.
        workdir: The working folder on the host.

    Raises:
        DagsterSlurmError: The site's host is not known.
    """
    facts = facts or Site()
    way = facts.logins[0] if facts.logins else LoginWay()
    target = hostname or way.hostname or next(iter(facts.login_nodes), None)
    if site and target is None:
        raise DagsterSlurmError(f"the host of the site {site} is not known", hint="Name it by --hostname.")
    slurm = (scheduler or ("slurm" if target else "process")) == "slurm"
    lines = [
        f"# Where scripts run with DAGSTER_SLURM_PROFILE={name}. All that may stand here is told by",
        "# `dg-slurm schema --print profile`; a value of a script wins over one of these.",
    ]
    if site:
        lines.append(f"site: {flow_style(site)} # its facts and limits: dg-slurm sites show {site}")
    lines += _comments([*way.notes, *facts.notes])
    lines.append(f"host: {flow_style(_host(target, user, way))}")
    lines.append(f"scheduler: {'slurm' if slurm else 'process'}")
    folder = workdir or (_workdir(facts) if target else ".dagster-slurm")
    lines.append(f"workdir: {flow_style(folder)} # run directories and environments")
    lines += _resources(facts) if slurm else []
    lines += [
        "environment:",
        "  build: on_demand # `deployed` takes only environments that `dg-slurm env deploy` put there",
        "# env: {DATA_DIR: /path/to/data}",
    ]
    if slurm:
        lines += [
            "limits: {queries_per_minute: 2, max_submit_jobs: 100}",
            f"pool: {flow_style(name)} # Dagster runs at most as many of its steps at once as the pool allows",
        ]
    lines += [
        "retention: {success: 0d, failure: 14d}",
        "on_shutdown: detach # jobs live on when Dagster stops",
    ]
    return "\n".join(lines) + "\n"


def _host(target: str | None, user: str | None, way: LoginWay) -> dict[str, Any]:
    if target is None:
        return {"type": "local"}
    host: dict[str, Any] = {"type": "ssh", "hostname": target}
    if way.port != 22:
        host["port"] = way.port
    host["user"] = user or "{{ env('HPC_USER') }}"
    host["login"] = list(way.login)
    if way.jump:
        host["jump"] = list(way.jump)
    return host


def _workdir(facts: Site) -> str:
    """Return a folder on the host: scratch if the site names it by a variable, else in the user's home."""
    scratch = facts.paths.get("scratch", "")
    return f"{scratch}/dagster" if scratch.startswith("$") else "~/dagster"


def _resources(facts: Site) -> list[str]:
    asked: dict[str, Any] = {}
    if facts.partitions:
        asked["partition"] = next(iter(facts.partitions))
    if facts.account_required:
        asked["account"] = "{{ env('HPC_ACCOUNT') }}"
    if not asked:
        return ['# resources: {partition: gpu, account: proj1, time: "01:00:00"}']
    names = ", ".join(facts.partitions)
    there = _comments([f"Partitions: {names}."]) if len(facts.partitions) > 1 else []
    return [*there, f"resources: {flow_style(asked)}"]


def _comments(notes: list[str]) -> list[str]:
    """Return notes as comment lines."""
    lines: list[str] = []
    for note in notes:
        line = "#"
        for word in note.split():
            if len(line) + len(word) >= _LONGEST_LINE:
                lines.append(line)
                line = "#"
            line += f" {word}"
        lines.append(line)
    return lines
