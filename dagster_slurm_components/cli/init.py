"""``dg-slurm init``: the first files of something new."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, StrictUndefined

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec import profiles
from dagster_slurm_components.spec.flow_style import flow_style
from dagster_slurm_components.spec.site import LoginWay, Site

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


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
    if not _NAME.fullmatch(name):
        raise DagsterSlurmError(
            f"{name!r} can't be the name of a profile", hint="Use letters, digits, `-`, `_` and `.`."
        )
    here = Path.cwd()
    file = (profiles.profiles_folder(here) or profiles.project_folder(here) / "profiles") / f"{name}.yaml"
    if file.exists() and not force:
        raise DagsterSlurmError("there is such a profile", where=str(file), hint="--force writes over it.")
    facts = profiles.known_site(site, here).load() if site else Site()
    text = _profile_text(name, site, facts, wanted)
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    try:
        profiles.load_profile_file(file, unrendered=True)
    except DagsterSlurmError:
        # What was typed can't stand in a profile: leave things as they were.
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
        raise
    click.echo(f"wrote {file}")
    click.echo(f"next: edit it, then `dg-slurm doctor {name}`")


def _profile_text(name: str, site: str | None, facts: Site, wanted: Mapping[str, str | None]) -> str:
    way = facts.logins[0] if facts.logins else LoginWay()
    target = wanted["hostname"] or way.hostname or next(iter(facts.login_nodes), None)
    if site and target is None:
        raise DagsterSlurmError(f"the host of the site {site} is not known", hint="Name it by --hostname.")
    scratch = facts.paths.get("scratch", "")
    # Scratch if the site names it by a variable, else the user's home.
    on_host = f"{scratch}/dagster" if scratch.startswith("$") else "~/dagster"
    resources = {
        "partition": next(iter(facts.partitions), None),
        "account": "{{ env('HPC_ACCOUNT') }}" if facts.account_required else None,
    }
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)  # noqa: S701 -- YAML
    environment.filters.update(flow=flow_style, comment=_comment)
    template = Path(__file__).with_name("profile.yaml.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=name,
        site=site,
        notes=[*way.notes, *facts.notes],
        host=_host(target, wanted["user"], way),
        slurm=(wanted["scheduler"] or ("slurm" if target else "process")) == "slurm",
        workdir=wanted["workdir"] or (on_host if target else ".dagster-slurm"),
        partitions=list(facts.partitions),
        resources={option: value for option, value in resources.items() if value},
    )


def _host(target: str | None, user: str | None, way: LoginWay) -> dict[str, Any]:
    if target is None:
        return {"type": "local"}
    return {
        "type": "ssh",
        "hostname": target,
        **({"port": way.port} if way.port != 22 else {}),
        "user": user or "{{ env('HPC_USER') }}",
        "login": list(way.login),
        **({"jump": list(way.jump)} if way.jump else {}),
    }


def _comment(note: str) -> str:
    # Words stay whole: addresses and commands are there to be copied.
    lines = textwrap.wrap(note, 118, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent("\n".join(lines), "# ")
