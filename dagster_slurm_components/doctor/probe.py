"""A draft of a site, from what a cluster says of itself."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from dagster_slurm_components.doctor import slurm_facts
from dagster_slurm_components.doctor.cluster import ask
from dagster_slurm_components.doctor.slurm_facts import NodeKind, Partition, limit, members, number
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.jobs.target import satellite_of
from dagster_slurm_components.spec.hosts import SshHost
from dagster_slurm_components.spec.profiles import LoadedProfile

PATHS = ("WORK", "SCRATCH", "DATA", "PROJECT", "FAST")
"""Variables by which sites name folders."""

_HEAD = """\
# A draft, from what Slurm said. Ways to log in, paths, the network and quirks are for you to add and to check:
# `dg-slurm sites show leonardo` is an example. Then set `verified` in `sources` to true.
"""


def draft_site(profile: LoadedProfile) -> str:
    """Ask a profile's cluster and return the YAML of a site.

    Raises:
        HostError: The host can't be reached.
        DagsterSlurmError: Slurm does not answer there.
    """
    satellite = satellite_of(profile)
    facts = satellite.hello(PATHS)
    config, failure = ask(satellite, slurm_facts.CONFIG)
    if failure is not None:
        raise DagsterSlurmError(
            f"Slurm does not answer: {failure}",
            where=satellite.host.name,
            hint="`dg-slurm doctor` with the same profile says more.",
        )
    date = time.strftime("%Y-%m-%d", time.gmtime())
    site = {
        "description": slurm_facts.parse_config(config).get("ClusterName", profile.name),
        "sources": {"all": {"document": "scontrol, sinfo and sacctmgr", "date": date, "verified": False}},
        **_access(profile),
        **learn(satellite),
        "paths": {name.lower(): f"${name}" for name in PATHS if facts.environment.get(name)},
    }
    return _HEAD + yaml.safe_dump(_stated(**site), sort_keys=False, allow_unicode=True, width=110)


def learn(satellite: Satellite) -> dict[str, Any]:
    """Ask Slurm for what it says of a site, and return that as a raw tree."""
    partitions = slurm_facts.parse_partitions(ask(satellite, slurm_facts.PARTITIONS)[0])
    kinds = slurm_facts.parse_node_kinds(ask(satellite, slurm_facts.NODE_KINDS)[0])
    # Without accounting there are none.
    qualities = slurm_facts.parse_qualities(ask(satellite, slurm_facts.QUALITIES)[0])
    return draft(partitions, kinds, qualities)


def draft(
    partitions: Mapping[str, Partition],
    kinds: Sequence[NodeKind],
    qualities: Mapping[str, Mapping[str, str | int | None]],
) -> dict[str, Any]:
    """Return what Slurm's answers say of a site, as a raw tree.

    By which options jobs should ask for memory and GPUs, and whether they need an account, is a site's policy that no
    answer tells.
    """
    return {
        "partitions": {
            name: _partition(row, [kind for kind in kinds if kind.partition == name], qualities)
            for name, row in partitions.items()
        },
        "qos": {
            name: _stated(**{option: value or None for option, value in limits.items()})
            for name, limits in qualities.items()
        },
        "resources": _stated(partition=slurm_facts.default_partition(partitions)),
    }


def _partition(row: Partition, kinds: Sequence[NodeKind], qualities: Iterable[str]) -> dict[str, Any]:
    gpu_types = {kind.gpu_type for kind in kinds if kind.gpus}
    allowed, denied = members(row.get("AllowQos")), members(row.get("DenyQos"))
    if allowed is None and denied:
        allowed = frozenset(qualities) - denied
    state, least = row.get("State", "UP"), number(row.get("MinNodes")) or 0
    memory = max((kind.memory_mb for kind in kinds), default=0)
    return _stated(
        description=None if state == "UP" else f"was {state} when this was written",
        nodes=number(row.get("TotalNodes")) or None,
        max_time=limit(row.get("MaxTime")),
        min_nodes=least if least > 1 else None,
        max_nodes=number(row.get("MaxNodes")) or None,
        max_cpus_per_node=max((kind.cpus for kind in kinds), default=0) or None,
        max_mem_per_node=f"{memory}M" if memory else None,
        max_gpus_per_node=max((kind.gpus for kind in kinds), default=None),
        gpu_type=gpu_types.pop() if len(gpu_types) == 1 else None,
        qos=sorted(allowed or ()),
    )


def _access(profile: LoadedProfile) -> dict[str, Any]:
    host = profile.profile.host
    if not isinstance(host, SshHost):
        return {}
    way = _stated(port=host.port, login=list(host.login), jump=[jump.hostname for jump in host.jump])
    return {
        "login_nodes": [host.hostname],
        "logins": [way],
        "interactive_login": True if set(host.login) - {"key", "gssapi"} else None,
    }


def _stated(**values: Any) -> dict[str, Any]:
    """Leave out what Slurm did not say."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}
