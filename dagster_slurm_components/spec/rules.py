"""What a script's fields must agree on, beyond what each of them may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set

from dagster_slurm_components.spec import asked
from dagster_slurm_components.spec.place import KeyPath
from dagster_slurm_components.spec.problems import Problem, did_you_mean
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.site import JobLimits, Partition, Site
from dagster_slurm_components.spec.slurm_values import memory_megabytes, time_seconds
from dagster_slurm_components.spec.templates import Locate, is_template


def script_problems(
    script: Script, position_of: Locate, *, without: Set[object] = frozenset()
) -> Iterator[Problem]:
    """Yield where a script's fields don't agree, but for rules on fields that it is ``without``."""
    for fields, rule in _RULES:
        if without.isdisjoint(fields):
            yield from rule(script, position_of)


def _launcher(script: Script, position_of: Locate) -> Iterator[Problem]:
    for path, message in script.launcher.disagreements(script.resources):
        yield Problem(message, position_of(path), path, kind="launcher")


def site_problems(script: Script, site: Site, position_of: Locate) -> Iterator[Problem]:
    """Yield what a script asks for and a site doesn't give.

    Of several partitions, one that fits is enough: Slurm takes the one where the job starts first.
    """
    resources = script.resources
    if site.account_required and resources.account is None:
        path: KeyPath = ("resources", "account")
        yield Problem("the site asks for an account", position_of(path), path, kind="site_limit")
    names = resources.partition.split(",") if resources.partition else []
    path = ("resources", "partition")
    for name in names if site.partitions else []:
        if name not in site.partitions:
            message = f"the site has no partition `{name}`"
            yield Problem(message, position_of(path), path, did_you_mean(name, site.partitions), "site_limit")
    partitions = {name: site.partitions[name] for name in names if name in site.partitions}
    fits = [
        list(_over(script, f"partition {name}", limits, position_of)) for name, limits in partitions.items()
    ]
    if fits and all(fits):
        yield from fits[0]
    yield from _qos(script, site, names, position_of)
    yield from _options(script, site, list(partitions.values()), position_of)


def _options(
    script: Script, site: Site, partitions: list[Partition], position_of: Locate
) -> Iterator[Problem]:
    """Yield options by which this site gives no memory or GPUs; of several partitions, each has its say."""
    for what, fact, options in (
        ("memory", "memory_option", ("mem", "mem_per_cpu", "mem_per_gpu")),
        ("GPUs", "gpu_option", ("gpus", "gpus_per_node", "gpus_per_task", "gres")),
    ):
        everywhere = getattr(site, fact)
        allowed = {getattr(partition, fact) or everywhere for partition in partitions} or {everywhere}
        if None in allowed:
            continue
        for name in options:
            value = getattr(script.resources, name)
            asks = value is not None and (name != "gres" or "gpu" in value)
            if asks and name not in allowed:
                path: KeyPath = ("resources", name)
                right = " or ".join(f"`{option}`" for option in sorted(allowed) if option != "none")
                hint = f"write {right}" if right else f"leave it out: jobs get {what} with their nodes"
                message = f"the site gives no {what} by `{name}`"
                yield Problem(message, position_of(path), path, hint, "site_limit")


def _qos(script: Script, site: Site, partitions: list[str], position_of: Locate) -> Iterator[Problem]:
    qos = script.resources.qos
    if qos is None:
        return
    path: KeyPath = ("resources", "qos")
    if site.qos and qos not in site.qos:
        message = f"the site has no quality of service `{qos}`"
        yield Problem(message, position_of(path), path, did_you_mean(qos, site.qos), "site_limit")
    for name in partitions:
        allowed = site.partitions[name].qos if name in site.partitions else []
        if allowed and qos not in allowed:
            message = f"partition {name} doesn't take the quality of service `{qos}`"
            yield Problem(message, position_of(path), path, did_you_mean(qos, allowed), "site_limit")
    if qos in site.qos:
        yield from _over(script, f"quality of service {qos}", site.qos[qos], position_of)


def _over(script: Script, what: str, limits: JobLimits, position_of: Locate) -> Iterator[Problem]:
    """Yield what goes beyond limits; what the options don't say for certain passes."""
    resources = script.resources

    def problem(name: str, message: str) -> Problem:
        path: KeyPath = ("resources", name)
        return Problem(f"{what}: {message}", position_of(path), path, kind="site_limit")

    seconds, most = asked.seconds(resources), time_seconds(limits.max_time) if limits.max_time else None
    if most is not None and resources.time is not None and (seconds is None or seconds > most):
        yield problem("time", f"{resources.time} is longer than its limit of {limits.max_time}")
    nodes = asked.nodes(resources)
    if nodes is not None and limits.max_nodes is not None and nodes[0] > limits.max_nodes:
        yield problem("nodes", f"{nodes[0]} nodes are more than its limit of {limits.max_nodes}")
    if nodes is not None and limits.min_nodes is not None and nodes[1] < limits.min_nodes:
        yield problem("nodes", f"{nodes[1]} nodes are fewer than its limit of {limits.min_nodes}")
    gpus = asked.gpus_per_node(resources)
    if gpus is not None and limits.max_gpus_per_node is not None and gpus > limits.max_gpus_per_node:
        name = next((n for n in ("gpus_per_node", "gres", "gpus_per_task") if getattr(resources, n)), "gpus")
        yield problem(name, f"{gpus} GPUs on a node are more than its {limits.max_gpus_per_node}")
    cpus = asked.cpus_per_node(resources)
    if cpus is not None and limits.max_cpus_per_node is not None and cpus > limits.max_cpus_per_node:
        name = "cpus_per_task" if resources.cpus_per_task else "ntasks_per_node"
        yield problem(name, f"{cpus} CPUs on a node are more than its {limits.max_cpus_per_node}")
    memory = asked.memory_per_node(resources)
    if memory is not None and limits.max_mem_per_node is not None:
        name = next((n for n in ("mem", "mem_per_cpu") if getattr(resources, n)), "mem_per_gpu")
        if memory > memory_megabytes(limits.max_mem_per_node):
            yield problem(name, f"{memory:.0f}M on a node is more than its {limits.max_mem_per_node}")


def _assets(script: Script, position_of: Locate) -> Iterator[Problem]:
    if not script.assets:
        hint = "write `assets: [{key: NAME}]`: Dagster runs a script to make its assets"
        yield Problem("the script makes no asset", position_of(()), hint=hint, kind="no_assets")
    for index, asset in enumerate(script.assets):
        path: KeyPath = ("assets", index)
        if asset.partitions_def != script.assets[0].partitions_def:
            message = "the assets of one script must have the same partitions, for one job makes them"
            yield Problem(message, position_of(path), path, kind="partitions")
        if asset.key in asset.deps and not is_template(asset.key):
            path = (*path, "deps", asset.deps.index(asset.key))
            message = f"`{asset.key}` depends on itself"
            yield Problem(message, position_of(path), path, kind="deps")


def _checks(script: Script, position_of: Locate) -> Iterator[Problem]:
    keys = [asset.key for asset in script.assets]
    names: set[tuple[str, str]] = set()
    for index, check in enumerate(script.checks):
        path: KeyPath = ("checks", index, "asset")
        may_exist = check.asset in keys or is_template(check.asset) or any(map(is_template, keys))
        if not may_exist:
            message = f"`{check.asset}` is not an asset of this script"
            hint = did_you_mean(check.asset, keys)
            yield Problem(message, position_of(path), path, hint, "unknown_asset")
        path = ("checks", index, "name")
        if (check.asset, check.name) in names and not is_template(check.name):
            message = f"`{check.asset}` has two checks named `{check.name}`"
            yield Problem(message, position_of(path), path, "rename one", "duplicate_check")
        names.add((check.asset, check.name))


_RULES: tuple[tuple[tuple[str, ...], Callable[[Script, Locate], Iterator[Problem]]], ...] = (
    (("assets",), _assets),
    (("assets", "checks"), _checks),
    (("launcher", "resources"), _launcher),
)
"""Each with the fields that it compares."""
