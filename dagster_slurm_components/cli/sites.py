"""``dg-slurm sites``: the shipped and the project's own facts about HPC centres."""

from pathlib import Path

import click

from dagster_slurm_components.cli.terminal import (
    Columns,
    Group,
    json_option,
    print_json,
    print_rows,
    profile_argument,
    table,
)
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.spec.profiles import OWN_SITES, known_site, known_sites
from dagster_slurm_components.spec.site import JobLimits, Site

_SITES: Columns = {
    **{"site": "name", "description": "description"},
    "partitions": lambda row: ", ".join(row["partitions"]),
    "verified": "verified",
}


@click.group(cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def sites(context: click.Context, as_json: bool) -> None:
    """List the known sites. A profile names one by `site: NAME`."""
    if context.invoked_subcommand is None:
        context.invoke(list_sites, as_json=as_json)


@sites.command("list")
@json_option
def list_sites(as_json: bool) -> None:
    """List the known sites, as without a command."""
    loaded = [(entry, entry.load()) for entry in known_sites(Path.cwd()).values()]
    rows = [
        {
            **{"name": entry.name, "description": site.description, "partitions": list(site.partitions)},
            **{"verified": _verified(site), "file": str(entry.file)},
        }
        for entry, site in loaded
    ]
    print_rows(rows, _SITES, as_json=as_json)


@sites.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show all that is known of a site."""
    entry = known_site(name, Path.cwd())
    site = entry.load()
    if as_json:
        print_json(site.model_dump(mode="json", exclude_defaults=True))
        return
    click.echo(f"{name}: {site.description or ''}\nfacts: {entry.file}")
    for source in dict.fromkeys(site.sources.values()):
        url = f" <{source.url}>" if source.url else ""
        state = "verified" if source.verified else "not verified on the system"
        click.echo(f"source: {source.document}, {source.date}, {state}{url}")
    _show_access(site)
    if site.partitions:
        click.echo()
        rows = [
            [name, *_limits(part), part.gpu_type, ",".join(part.qos)]
            for name, part in site.partitions.items()
        ]
        table(["partition", *_LIMITS, "gpu", "qos"], rows, title="Partitions")
    if site.qos:
        click.echo()
        rows = [[name, *_limits(limits)] for name, limits in site.qos.items()]
        table(["qos", *_LIMITS], rows, title="Qualities of service")
    if site.notes:
        click.echo("\n" + "\n".join(f"* {note}" for note in site.notes))


@sites.command()
@profile_argument
@click.option("--name", help="Name of the site.  [default: the profile's name]")
@click.option("--print", "only_print", is_flag=True, help="Print the draft and write no file.")
def probe(profile_name: str | None, name: str | None, only_print: bool) -> None:
    """Ask a cluster for its facts and write a draft of a site.

    The draft goes to sites/NAME.yaml of the project; `site: NAME` in a profile then uses it. What Slurm does not tell
    (ways to log in, paths, network, quirks) is left to you.
    """
    from dagster_slurm_components.doctor.probe import draft_site  # noqa: PLC0415 - imports SSH
    from dagster_slurm_components.spec.profiles import load_profile  # noqa: PLC0415

    profile = load_profile(profile_name, start=Path.cwd())
    text = draft_site(profile)
    if only_print:
        click.echo(text, nl=False)
        return
    file = profile.folder / OWN_SITES / f"{name or profile.name}.yaml"
    if file.exists():
        raise DagsterSlurmError(
            f"{file} is there already", hint="Name another one by --name, or use --print and compare."
        )
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    click.echo(
        f"wrote {file}\nRead it, add what Slurm does not know, and write `site: {file.stem}` in a profile."
    )


_LIMITS = ("max time", "nodes", "cpus", "memory", "gpus", "jobs")


def _limits(limits: JobLimits) -> tuple[object, ...]:
    least = f"{limits.min_nodes}-" if limits.min_nodes else ""
    return (
        *(limits.max_time, f"{least}{limits.max_nodes or ''}", limits.max_cpus_per_node),
        *(limits.max_mem_per_node, limits.max_gpus_per_node, limits.max_submit_jobs),
    )


def _show_access(site: Site) -> None:
    for way in site.logins:
        hosts = way.hostname or ", ".join(site.login_nodes)
        jump = f" through {', '.join(way.jump)}" if way.jump else ""
        click.echo(f"login: {hosts} port {way.port}{jump}: {' and '.join(way.login)}")
        for note in way.notes:
            click.echo(f"       {note}")
    yes_no = {True: "yes", False: "no", None: None}
    facts = {
        "account": "required" if site.account_required else None,
        "memory is asked by": site.memory_option,
        "GPUs are asked by": site.gpu_option,
        "internet on login nodes": yes_no[site.internet_on_login_nodes],
        "internet on compute nodes": yes_no[site.internet_on_compute_nodes],
        "modules": ", ".join(site.environment.defaults().get("modules", [])) or None,
        **{f"{name} folder": path for name, path in site.paths.items()},
    }
    for name, fact in facts.items():
        if fact is not None:
            click.echo(f"{name}: {fact}")


def _verified(site: Site) -> str:
    if site.verified:
        return site.verified
    return "yes" if site.sources and all(source.verified for source in site.sources.values()) else "no"
