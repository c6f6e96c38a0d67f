"""What a script's fields must agree on, beyond what each of them may be."""

import json
from collections.abc import Callable, Iterator, Mapping, Set

from dagster_slurm_components.spec import asked
from dagster_slurm_components.spec.environments import ContainerEnvironment
from dagster_slurm_components.spec.inputs import input_problems
from dagster_slurm_components.spec.launchers import RankLauncher, asks_for_gpus
from dagster_slurm_components.spec.merge import Merged
from dagster_slurm_components.spec.model import Model
from dagster_slurm_components.spec.outputs import is_notebook, output_problems
from dagster_slurm_components.spec.partition_mappings import AssetDep, TimeWindowMapping
from dagster_slurm_components.spec.place import KeyPath, Locate, texts
from dagster_slurm_components.spec.problems import Problem, did_you_mean
from dagster_slurm_components.spec.relay import relay_problems
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.script import Script
from dagster_slurm_components.spec.site import JobLimits, Partition, Site
from dagster_slurm_components.spec.slurm_values import memory_megabytes, time_seconds
from dagster_slurm_components.spec.templates import inputs_in, is_template


def script_problems(
    script: Script, position_of: Locate, *, without: Set[object] = frozenset()
) -> Iterator[Problem]:
    """Yield where a script's fields don't agree, but for rules on fields that it is ``without``."""
    for fields, rule in _RULES:
        if without.isdisjoint(fields):
            yield from rule(script, position_of)


def _launcher(script: Script, position_of: Locate) -> Iterator[Problem]:
    for path, message in script.launcher.disagreements(script.resources):
        yield Problem.at(position_of, path, message, kind="launcher")


def _notebook(script: Script, position_of: Locate) -> Iterator[Problem]:
    if is_notebook(script.payload) and isinstance(script.launcher, RankLauncher):
        message = (
            f"a notebook runs once, and the launcher {script.launcher.type} starts its payload for each rank"
        )
        yield Problem.at(
            position_of, ("launcher", "type"), message, "take the launcher bash, or ray", "launcher"
        )


def _inputs(script: Script, position_of: Locate) -> Iterator[Problem]:
    yield from input_problems(script.inputs, position_of)
    before = {asset.key: {dep.asset for dep in asset.deps} for asset in script.assets}
    for name, each in script.inputs.items():
        if each.asset in before and each.asset not in before[each.asset]:
            message = f"`{each.asset}` is made by this script itself"
            hint = "for its partition before write it in its `deps`, with a `partition_mapping`"
            yield Problem.at(position_of, ("inputs", name), message, hint, "inputs")
    for text, path in texts({"args": script.args, "command": script.command, "env": dict(script.env)}):
        for name in sorted(inputs_in(text) - script.inputs.keys()):
            hint = did_you_mean(name, script.inputs) or "name it below `inputs`"
            yield Problem.at(position_of, path, f"the script has no input `{name}`", hint, "inputs")


def _outputs(script: Script, position_of: Locate) -> Iterator[Problem]:
    return output_problems(script.outputs, [asset.key for asset in script.assets], position_of)


def _relay(script: Script, position_of: Locate) -> Iterator[Problem]:
    if script.relay is not None:
        without_step = {"leave": script.leave, "array": script.array is not None}
        yield from relay_problems(script.relay, script.outputs, without_step, position_of)


def ranks_without_gpus(script: Script, position_of: Locate) -> Iterator[Problem]:
    """Yield a launcher that counts GPUs where none are asked for; without Slurm it counts those that are there."""
    ranks = getattr(script.launcher, "nproc_per_node", None)
    if ranks == "gpu" and not asked.gpus_per_node(script.resources) and not asks_for_gpus(script.resources):
        message = "one rank for each GPU, but no GPUs are asked for"
        yield Problem.at(position_of, ("launcher", "nproc_per_node"), message, kind="launcher")


def staging_problems(script: Script, scheduler: str, position_of: Locate) -> Iterator[Problem]:
    """Yield why a payload can't work on the node's own disk; without Slurm there is one node, whatever is asked for."""
    if script.stage is None:
        return
    resources, path = script.resources, ("stage",)
    most = (asked.nodes(resources) or (1, 1))[1]
    spread = resources.nodes is None and (resources.ntasks or 1) > 1
    if scheduler == "slurm" and (most > 1 or spread):
        nodes = (
            f"{most} nodes are asked for" if most > 1 else f"{resources.ntasks} tasks may get several nodes"
        )
        hint = "write `nodes: 1` under `resources`, or take `stage` out and let each rank copy what it needs"
        yield Problem.at(position_of, path, f"`stage` copies to one node, and {nodes}", hint, "stage")
    if isinstance(script.environment, ContainerEnvironment) and script.environment.edf:
        message = "an `edf` names its folders before the job runs, and `stage` makes one in the job"
        yield Problem.at(
            position_of, path, message, "take `stage` out, or another container runtime", "stage"
        )


def not_finite(script: Script, position_of: Locate) -> Iterator[Problem]:
    """Yield the metadata of definitions in which there is a number that JSON and Dagster's UI have no word for."""
    for field in ("assets", "checks"):
        for index, each in enumerate(getattr(script, field)):
            for name, value in each.metadata.items():
                try:
                    json.dumps(value, allow_nan=False, skipkeys=True, default=str)
                except ValueError:
                    where, what = (
                        (field, index, "metadata", name),
                        "a number that is not finite is shown as text",
                    )
                    yield Problem.at(position_of, where, what, kind="not_finite", level="warning")


def requeues_without_signal(script: Script, merged: Merged) -> Iterator[Problem]:
    """Yield a wish to go back into the queue with a checkpoint that nothing asks the payload for."""
    asked_for = (merged.data.get("resources") or {}).get("signal") and script.resources.requeue is not False
    if script.requeue_on_timeout and not asked_for:
        message = "`requeue_on_timeout` needs a `signal` that asks for a checkpoint, and no `requeue: false`"
        hint = "write `signal: USR1@120` under `resources`"
        yield Problem.at(merged.position, ("requeue_on_timeout",), message, hint, "requeue")


def site_problems(script: Script, site: Site, position_of: Locate) -> Iterator[Problem]:
    """Yield what a script asks for and a site doesn't give.

    Of several partitions, one that fits is enough: Slurm takes the one where the job starts first.
    """

    def refused(name: str, message: str, hint: str | None = None) -> Problem:
        return Problem.at(position_of, ("resources", name), message, hint, "site_limit")

    resources = script.resources
    if site.account_required and resources.account is None:
        yield refused("account", "the site asks for an account")
    names = resources.partition.split(",") if resources.partition else []
    for name in names if site.partitions else []:
        if name not in site.partitions:
            hint = did_you_mean(name, site.partitions)
            yield refused("partition", f"the site has no partition `{name}`", hint)
    partitions = {name: site.partitions[name] for name in names if name in site.partitions}
    fits = [[*beyond(resources, limits, f"partition {name}")] for name, limits in partitions.items()]
    if fits and all(fits):
        yield from (refused(*each) for each in fits[0])
    yield from (refused("qos", *each) for each in _qos(resources.qos, site, partitions))
    if resources.qos in site.qos:
        over = beyond(resources, site.qos[resources.qos], f"quality of service {resources.qos}")
        yield from (refused(*each) for each in over)
    yield from (refused(*each) for each in _options(resources, site, [*partitions.values()]))


def _options(resources: Resources, site: Site, partitions: list[Partition]) -> Iterator[tuple[str, str, str]]:
    """Yield options by which this site gives no memory or GPUs; of several partitions, each has its say."""
    for what, fact, options in (
        ("memory", "memory_option", ("mem", "mem_per_cpu", "mem_per_gpu")),
        ("GPUs", "gpu_option", ("gpus", "gpus_per_node", "gpus_per_task", "gres")),
    ):
        everywhere = getattr(site, fact)
        allowed = {getattr(partition, fact) or everywhere for partition in partitions} or {everywhere}
        if None in allowed:
            continue
        right = " or ".join(f"`{option}`" for option in sorted(allowed) if option != "none")
        hint = f"write {right}" if right else f"leave it out: jobs get {what} with their nodes"
        for name in options:
            value = getattr(resources, name)
            asks = value is not None and (name != "gres" or "gpu" in value)
            if asks and name not in allowed:
                yield name, f"the site gives no {what} by `{name}`", hint


def _qos(
    qos: str | None, site: Site, partitions: Mapping[str, Partition]
) -> Iterator[tuple[str, str | None]]:
    if qos is None:
        return
    if site.qos and qos not in site.qos:
        yield f"the site has no quality of service `{qos}`", did_you_mean(qos, site.qos)
    for name, partition in partitions.items():
        if partition.qos and qos not in partition.qos:
            message = f"partition {name} doesn't take the quality of service `{qos}`"
            yield message, did_you_mean(qos, partition.qos)


def beyond(resources: Resources, limits: JobLimits, what: str) -> Iterator[tuple[str, str]]:
    """Yield the options that go beyond limits, and why; what they don't say for certain passes."""

    def written(*names: str) -> str:
        return next((name for name in names if getattr(resources, name)), names[-1])

    if resources.time is not None and limits.max_time is not None:
        seconds, most = asked.seconds(resources), time_seconds(limits.max_time)
        if most is not None and (seconds is None or seconds > most):
            yield "time", f"{what}: {resources.time} is longer than its limit of {limits.max_time}"
    fewest, most_nodes = asked.nodes(resources) or (None, None)
    if _beyond(fewest, limits.max_nodes):
        yield "nodes", f"{what}: {fewest} nodes are more than its limit of {limits.max_nodes}"
    if _beyond(limits.min_nodes, most_nodes):
        yield "nodes", f"{what}: {most_nodes} nodes are fewer than its limit of {limits.min_nodes}"
    gpus, cpus = asked.gpus_per_node(resources), asked.cpus_per_node(resources)
    if _beyond(gpus, limits.max_gpus_per_node):
        name = written("gpus_per_node", "gres", "gpus_per_task", "gpus")
        yield name, f"{what}: {gpus} GPUs on a node are more than its {limits.max_gpus_per_node}"
    if _beyond(cpus, limits.max_cpus_per_node):
        name = written("cpus_per_task", "ntasks_per_node")
        yield name, f"{what}: {cpus} CPUs on a node are more than its {limits.max_cpus_per_node}"
    memory, most_memory = asked.memory_per_node(resources), limits.max_mem_per_node
    if most_memory is not None and _beyond(memory, memory_megabytes(most_memory)):
        name = written("mem", "mem_per_cpu", "mem_per_gpu")
        yield name, f"{what}: {memory:.0f}M on a node is more than its {most_memory}"


def _beyond(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def _assets(script: Script, position_of: Locate) -> Iterator[Problem]:
    if not script.assets and not script.checks:
        hint = "write `assets: [{key: NAME}]`: Dagster runs a script to make its assets, or to check others"
        yield Problem.at(position_of, (), "the script makes no asset", hint, "no_assets")
    for index, asset in enumerate(script.assets):
        path: KeyPath = ("assets", index)
        if asset.partitions_def != script.assets[0].partitions_def:
            message = "the assets of one script must have the same partitions, for one job makes them"
            yield Problem.at(position_of, path, message, kind="partitions")
        for number, dep in enumerate(asset.deps):
            if dep.asset == asset.key and not is_template(asset.key):
                yield from _itself(script, dep, (*path, "deps", number), position_of)


def _itself(script: Script, dep: AssetDep, path: KeyPath, position_of: Locate) -> Iterator[Problem]:
    """Yield what is wrong with an asset that is made from itself: only earlier partitions are there by then."""
    earlier = (
        "for the partition before: `partition_mapping: {type: time_window, start_offset: -1, end_offset: -1}`"
    )
    mapping = dep.partition_mapping
    if mapping is None or (
        isinstance(mapping, Model) and not (isinstance(mapping, TimeWindowMapping) and mapping.end_offset < 0)
    ):
        yield Problem.at(position_of, path, f"`{dep.asset}` depends on itself", earlier, "deps")
    elif script.array is not None:
        message = (
            f"`{dep.asset}` is made from its own earlier partitions, and the tasks of an array run at once"
        )
        yield Problem.at(position_of, path, message, "take `array` out", "deps")


def _checks(script: Script, position_of: Locate) -> Iterator[Problem]:
    keys = [asset.key for asset in script.assets]
    partitions = script.assets[0].partitions_def if script.assets else None
    names: set[tuple[str, str]] = set()
    for index, check in enumerate(script.checks):
        path: KeyPath = ("checks", index)
        if keys and check.asset not in keys and not any(map(is_template, (check.asset, *keys))):
            message, hint = f"`{check.asset}` is not an asset of this script", did_you_mean(check.asset, keys)
            hint = hint or "what checks assets of others is a script of its own, without `assets`"
            yield Problem.at(position_of, (*path, "asset"), message, hint, "unknown_asset")
        if (check.asset, check.name) in names and not is_template(check.name):
            message = f"`{check.asset}` has two checks named `{check.name}`"
            yield Problem.at(position_of, (*path, "name"), message, "rename one", "duplicate_check")
        names.add((check.asset, check.name))
        if check.asset in check.additional_deps and not is_template(check.asset):
            where = (*path, "additional_deps", check.additional_deps.index(check.asset))
            message = f"the check `{check.name}` depends on its own asset, as every check does"
            yield Problem.at(position_of, where, message, "take it out", "deps")
        if keys and check.partitions_def is not None and check.partitions_def != partitions:
            message = f"the check `{check.name}` has other partitions than its asset"
            yield Problem.at(
                position_of, (*path, "partitions_def"), message, "write the asset's", "partitions"
            )


def _leave(script: Script, position_of: Locate) -> Iterator[Problem]:
    for key, act in (("retry", "try again"), ("idle", "see that a payload hangs")):
        if script.leave and key in script.model_fields_set:
            message = f"`{key}` does nothing where `leave` is set: no step is there to {act}"
            hint = "take one of the two out; `profiles.NAME` can hold what is meant for one profile"
            yield Problem.at(position_of, (key,), message, hint, f"leave_{key}")
    of_assets = {("leave",): script.leave, ("array",): script.array, _BACKFILL: script.op.backfill_policy}
    for path in [path for path, given in of_assets.items() if given and script.checks and not script.assets]:
        message = f"`{path[-1]}` is for scripts that make assets, and this one only checks those of others"
        yield Problem.at(position_of, path, message, f"take `{path[-1]}` out", "only_checks")
    if script.leave and script.array is not None:
        message = "`array` does nothing where `leave` is set: a job that was left is reported as a whole"
        yield Problem.at(position_of, ("array",), message, "take one of the two out", "leave_array")


_BACKFILL = ("op", "backfill_policy")
_RULES: tuple[tuple[tuple[str, ...], Callable[[Script, Locate], Iterator[Problem]]], ...] = (
    (("assets",), _assets),
    (("assets", "checks"), _checks),
    (("launcher", "resources"), _launcher),
    (("launcher", "payload"), _notebook),
    (("args", "assets", "command", "env", "inputs"), _inputs),
    (("assets", "outputs"), _outputs),
    (("array", "leave", "outputs", "relay"), _relay),
    (("array", "assets", "checks", "idle", "leave", "op", "retry"), _leave),
)
"""Each with the fields that it compares."""
