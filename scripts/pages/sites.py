"""A page for each shipped site, and their index, from ``dagster_slurm_components/sites``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dagster_slurm_components.spec.profiles import known_site
from dagster_slurm_components.spec.site import JobLimits, LoginWay, Partition, Site, Source
from pages.text import GENERATED, table

UNVERIFIED = (
    "These facts were read in documents and **not compared with the running system**. Limits change: ask the cluster"
    " (`dg-slurm sites probe`, `dg-slurm doctor`) and the centre's documentation before you rely on them."
)
YES_NO = {True: "yes", False: "no", None: "not known"}
LIMITS = {
    "max_time": "longest time",
    "min_nodes": "fewest nodes",
    "max_nodes": "most nodes",
    "max_cpus_per_node": "CPUs a node",
    "max_mem_per_node": "memory a node",
    "max_gpus_per_node": "GPUs a node",
    "max_submit_jobs": "jobs of a user",
}


def site_pages(folder: Path) -> Mapping[str, str]:
    """Return the text of each page, by its path in the repository."""
    sites = {file.stem: known_site(file.stem, folder).load() for file in sorted(folder.glob("*.yaml"))}
    pages = {f"docs/sites/{name}.md": _joined(_page(name, site)) for name, site in sites.items()}
    return {**pages, "docs/sites/index.md": _joined(_index(sites))}


def _joined(parts: Iterator[str]) -> str:
    return "\n\n".join([GENERATED, *parts]) + "\n"


def _index(sites: Mapping[str, Site]) -> Iterator[str]:
    yield "# Sites"
    yield (
        "What is known of some HPC centres, as data that ships with the package: a profile says `site: NAME`, and"
        " `dg-slurm check` holds each script against the site's limits. [Add yours](../how-to/add-a-site.md)."
    )
    yield UNVERIFIED
    rows = [
        (
            f"[{name}]({name}.md)",
            site.description or "",
            ", ".join(site.logins[0].login),
            str(len(site.partitions)),
        )
        for name, site in sites.items()
    ]
    yield table(("name", "system", "login", "partitions"), rows)


def _page(name: str, site: Site) -> Iterator[str]:
    yield f"# {site.description or name}"
    yield UNVERIFIED
    if site.documentation:
        yield f"The centre's documentation: <{site.documentation}>"
    yield "## A profile"
    yield f"```yaml\n# profiles/production.yaml\n{_profile(name, site)}\n```"
    yield "Put a folder of yours in place of `workdir`, and an account in place of the variable, if there is one."
    yield "## Log in"
    yield table(("host", "asks for", "through", "notes"), [_login(way, site) for way in site.logins])
    yield (
        f"Login nodes: {', '.join(f'`{node}`' for node in site.login_nodes)}." if site.login_nodes[1:] else ""
    )
    yield "## What holds there"
    rows = [
        ("jobs need an account", YES_NO[site.account_required]),
        ("login nodes reach the internet", YES_NO[site.internet_on_login_nodes]),
        ("compute nodes reach the internet", YES_NO[site.internet_on_compute_nodes]),
        ("memory is asked for by", site.memory_option or "any option"),
        ("GPUs are asked for by", site.gpu_option or "any option"),
        *((f"folder: {purpose}", f"``{path}``") for purpose, path in site.paths.items()),
    ]
    yield table(("what", "value"), rows)
    yield "## Partitions"
    yield _limits("partition", site.partitions)
    if site.qos:
        yield "## Quality of service"
        yield _limits("QOS", site.qos)
    if site.notes:
        yield "## Notes"
        yield "\n".join(f"* {note}" for note in site.notes)
    yield "## Sources"
    yield table(
        ("about", "document", "read"), [_source(about, source) for about, source in site.sources.items()]
    )


def _profile(name: str, site: Site) -> str:
    way = site.logins[0]
    host = {
        "type": "ssh",
        "hostname": way.hostname or site.login_nodes[0],
        "user": "\"{{ env('HPC_USER') }}\"",
    }
    if way.port != LoginWay.model_fields["port"].default:
        host["port"] = str(way.port)
    if way.jump:
        host["jump"] = f"[{', '.join(way.jump)}]"
    host["login"] = f"[{', '.join(way.login)}]"
    lines = [
        f"site: {name}",
        "host:",
        *(f"  {key}: {value}" for key, value in host.items()),
        "scheduler: slurm",
    ]
    asked = [f"partition: {next(iter(site.partitions))}"]
    if site.account_required:
        asked.append("account: \"{{ env('HPC_ACCOUNT') }}\"")
    return "\n".join([*lines, "workdir: /path/of/your/project/dagster", f"resources: {{{', '.join(asked)}}}"])


def _login(way: LoginWay, site: Site) -> tuple[str, ...]:
    host = f"`{way.hostname or site.login_nodes[0]}:{way.port}`"
    return host, ", ".join(way.login), ", ".join(f"`{hop}`" for hop in way.jump), " ".join(way.notes)


def _limits(head: str, limits: Mapping[str, JobLimits]) -> str:
    """Return a table with the columns that say something of one row at least."""
    rows: list[dict[str, str]] = []
    for name, limit in limits.items():
        row = {head: f"`{name}`"}
        if isinstance(limit, Partition):
            row |= {"what": limit.description or "", "GPU": limit.gpu_type or "", "nodes": _text(limit.nodes)}
            row |= {"QOS": ", ".join(f"`{qos}`" for qos in limit.qos)}
        rows.append(row | {title: _text(getattr(limit, field)) for field, title in LIMITS.items()})
    titles = [title for title in rows[0] if any(row[title] for row in rows)] if rows else [head]
    return table(tuple(titles), [tuple(row[title] for title in titles) for row in rows])


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _source(about: str, source: Source) -> Sequence[str]:
    document = f"[{source.document}]({source.url})" if source.url else source.document
    return f"`{about}`", document, source.date
