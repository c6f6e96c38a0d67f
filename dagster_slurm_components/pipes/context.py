"""What the payload is told of its step: the Pipes session of one job, and the context that it finds beside it."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster_pipes import PipesContextData, PipesDataProvenance, PipesPartitionKeyRange, PipesTimeWindow

from dagster_slurm_components.pipes.tags import MAY_LEAVE
from dagster_slurm_components.spec.run_override import RunOverride, run_override
from dagster_slurm_components.together import Together

StepContext = dg.OpExecutionContext | dg.AssetExecutionContext
AnyContext = StepContext | dg.AssetCheckExecutionContext

ASSET_CHECKS = "asset_checks"
"""The Pipes extra that names the checks of this run, in the words of ``report_asset_check``."""
PARTITION_KEYS = "partition_keys"
"""The Pipes extra that holds all keys of a range of partitions."""
_DIRECT = "EPHEMERAL"
"""The run's id in the context of a function that is called directly, as in a unit test (dagster 1.13)."""
_GATHER = 0.2
_PARTITION = "_dagster_slurm_partition"
_NOT_HANDED_ON = (
    "Hand on what the payload reported: `yield from completed.get_results()`. A declared check is reported by the "
    "payload, with `report_asset_check`, or yielded beside those results."
)


def is_direct(context: StepContext) -> bool:
    """Whether a function was called directly, with a context that was built for it: there is no run then."""
    return context.run_id == _DIRECT


def try_of(context: AnyContext) -> object:
    """Return what lives as long as one try of a step: contexts are wrapped anew for assets, ops and checks."""
    if isinstance(context, dg.AssetCheckExecutionContext):
        context = context.op_execution_context
    if is_direct(context):
        return context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
    return context.get_step_execution_context()


def override_of(context: AnyContext, config: Mapping[str, Any] | None = None) -> RunOverride:
    """Return what a step's run asks for: by its tags, and by the config of a script's op; raises a SpecError."""
    if isinstance(context, dg.AssetCheckExecutionContext):
        context = context.op_execution_context
    return run_override(config or {}, {} if is_direct(context) else context.run.tags)


@dataclass(frozen=True)
class Partition:
    """The partition that a step is for, or the range of them, as Pipes tells it; all empty where there is none.

    Attributes:
        name: The key, or the ends of the range.
        keys: All keys of a range, whose ends alone don't tell what lies between; none for a single partition.
        window: The time that they span; nothing where they are no windows of time.
    """

    name: str | None = None
    key: str | None = None
    span: PipesPartitionKeyRange | None = None
    keys: tuple[str, ...] = ()
    window: PipesTimeWindow | None = None


def partition_of(context: StepContext) -> Partition:
    """Return the partition that a step is for; Dagster is asked once a try, as a range may have many keys."""
    tried = try_of(context)
    if not hasattr(tried, _PARTITION):
        setattr(tried, _PARTITION, _partition(context))
    partition: Partition = getattr(tried, _PARTITION)
    return partition


def _partition(context: StepContext) -> Partition:
    if not (context.has_partition_key or context.has_partition_key_range):
        return Partition()
    ends, window = context.partition_key_range, None
    span = PipesPartitionKeyRange(start=ends.start, end=ends.end)
    with contextlib.suppress(dg.DagsterInvariantViolationError):
        times = context.partition_time_window
        window = PipesTimeWindow(start=times.start.isoformat(), end=times.end.isoformat())
    if context.has_partition_key:
        return Partition(str(context.partition_key), context.partition_key, span, window=window)
    return Partition(f"{ends.start}...{ends.end}", None, span, tuple(context.partition_keys), window)


def partition_at(context: StepContext, key: str) -> Partition:
    """Return one partition of a step's range."""
    partitions, window = context.assets_def.partitions_def, None
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        key = partitions.get_partition_key_from_str(key)
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition | dg.MultiPartitionsDefinition):
        with contextlib.suppress(dg.DagsterInvariantViolationError):  # no dimension is one of time
            times = partitions.time_window_for_partition_key(key)
            window = PipesTimeWindow(start=times.start.isoformat(), end=times.end.isoformat())
    return Partition(str(key), key, PipesPartitionKeyRange(start=key, end=key), window=window)


def at_partition(data: PipesContextData, partition: Partition) -> PipesContextData:
    """Return the Pipes context of a range of partitions for one of them."""
    extras = {name: value for name, value in (data["extras"] or {}).items() if name != PARTITION_KEYS}
    return {
        **data,
        "partition_key": partition.key,
        "partition_key_range": partition.span,
        "partition_time_window": partition.window,
        "extras": extras,
    }


def is_skippable(context: StepContext, key: dg.AssetKey) -> bool:
    """Return whether a step may leave an asset out."""
    tagged = None if is_direct(context) else context.op_def.tags.get(MAY_LEAVE)
    if tagged is None:
        return context.assets_def.specs_by_key[key].skippable
    return _text(key) in json.loads(tagged)


@dataclass(frozen=True)
class Selection:
    """The assets and checks that a step makes in this run, and those that it declares and is not asked for."""

    assets: frozenset[dg.AssetKey]
    checks: frozenset[dg.AssetCheckKey]
    others: frozenset[dg.AssetKey | dg.AssetCheckKey]

    def objection(self, key: dg.AssetKey | dg.AssetCheckKey) -> str | None:
        """Return why Dagster would take no result of an asset or check, or nothing if it takes one.

        A check that is not selected passes where its asset is: what it says is true of what this run makes.
        """
        if key in self.assets or key in self.checks:
            return None
        if key not in self.others:
            return "this step does not declare it"
        if isinstance(key, dg.AssetCheckKey) and key.asset_key in self.assets:
            return None
        return "it is not selected in this run"


def selection(context: StepContext) -> Selection | None:
    """Return what a step of assets makes; an op without assets makes none."""
    if not context.has_assets_def:
        return None
    assets = frozenset(context.selected_asset_keys)
    checks = frozenset(context.selected_asset_check_keys)
    declared = context.assets_def
    # `check_specs` knows the selected ones only.
    all_checks = (spec.key for spec in declared.node_check_specs_by_output_name.values())
    others = {*declared.specs_by_key, *all_checks} - {*assets, *checks}
    return Selection(assets, checks, frozenset(others))


def open_session(
    context: StepContext,
    reader: dg.PipesMessageReader,
    run_dir: str,
    extras: Mapping[str, Any],
    *,
    leaves: bool = False,
) -> dg.PipesSession:
    """Open a session, as ``dagster.open_pipes_session`` does (dagster 1.13), but for three things.

    Silence is no warning: the exit status decides, and no message is ever lost in a buffer. A step with skippable
    assets may leave them out: Dagster's own session makes a missing one an error. A run of checks alone tells the
    payload which. The context travels with the bundle, and who follows the job feeds the reader: nothing is to be
    closed. A step that ``leaves`` its job has no results.
    """
    chosen = selection(context)
    if not leaves and chosen is not None and not any(is_skippable(context, key) for key in chosen.assets):
        context.set_requires_typed_event_stream(error_message=f"{_NOT_HANDED_ON} Run directory: {run_dir}")
    return session_of(context, reader, run_dir, context_data(context, chosen, extras))


def session_of(
    context: StepContext, reader: dg.PipesMessageReader, run_dir: str, data: PipesContextData
) -> dg.PipesSession:
    """Return the session of a payload that is told this; nothing of it needs to be closed."""
    handler = dg.PipesMessageHandler(context, reader)
    with handler.handle_messages() as messages:
        return dg.PipesSession(
            context_data=data,
            message_handler=handler,
            context_injector_params={"path": f"{run_dir}/context.json"},
            message_reader_params=messages,
            context=context,
        )


def context_data(
    context: StepContext, chosen: Selection | None, extras: Mapping[str, Any] | None
) -> PipesContextData:
    """Return the Pipes context of a step.

    It is what ``dagster.open_pipes_session`` makes (dagster 1.13), and what that leaves out: a run of checks alone
    names their assets, so that ``report_asset_check`` works in the payload, and the extra ``asset_checks``; a run over
    a range of partitions names the range and, as the extra ``partition_keys``, all keys. Extras of the user's win.
    """
    # Those that the payload makes, and those that it only checks.
    keys = sorted({*chosen.assets, *(check.asset_key for check in chosen.checks)}) if chosen else []
    partition = partition_of(context)
    data = PipesContextData(
        asset_keys=[_text(key) for key in keys],
        code_version_by_asset_key={_text(key): _version(context, key) for key in keys},
        provenance_by_asset_key={_text(key): _provenance(context, key) for key in keys},
        partition_key=partition.key,
        partition_key_range=partition.span,
        partition_time_window=partition.window,
        run_id=context.run_id,
        job_name=None if is_direct(context) else context.job_name,
        retry_number=0 if is_direct(context) else context.retry_number,
        extras={**_own_extras(context, chosen), **(extras or {})},
    )
    if chosen is None:  # by this a payload knows that its step makes no assets
        data["asset_keys"] = data["code_version_by_asset_key"] = data["provenance_by_asset_key"] = None
    return data


def _own_extras(context: StepContext, chosen: Selection | None) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if chosen and any(isinstance(key, dg.AssetCheckKey) for key in (*chosen.checks, *chosen.others)):
        checks = sorted(chosen.checks, key=lambda check: (check.asset_key, check.name))
        own[ASSET_CHECKS] = [{"asset_key": _text(each.asset_key), "check_name": each.name} for each in checks]
    if keys := partition_of(context).keys:
        own[PARTITION_KEYS] = list(keys)
    return own


def _text(key: dg.AssetKey) -> str:
    return key.to_escaped_user_string()


def _version(context: StepContext, key: dg.AssetKey) -> str | None:
    spec = context.assets_def.specs_by_key.get(key)  # a check's asset may be made elsewhere
    return spec.code_version if spec else None


@lru_cache(maxsize=1)
def _newest(instance: dg.DagsterInstance) -> Together[dg.AssetKey, dg.EventLogEntry | None]:
    """Return what finds the newest materialization of an asset: one query for all steps that begin together."""

    def find(keys: Sequence[dg.AssetKey]) -> Sequence[dg.EventLogEntry | None]:
        entries = [record.asset_entry for record in instance.get_asset_records(keys)]
        newest = {entry.asset_key: entry.last_materialization for entry in entries}
        return [newest.get(key) for key in keys]

    return Together(find, gather=_GATHER)


def _provenance(context: StepContext, key: dg.AssetKey) -> PipesDataProvenance | None:
    # As `context.get_asset_provenance`, which looks among observations, too, where there is no materialization
    # (dagster 1.13): those of an asset that a step makes have none.
    made = _newest(context.instance)(key)
    provenance = dg.DataProvenance.from_tags(made.tags or {}) if made else None
    if provenance is None:
        return None
    versions = provenance.input_data_versions.items()
    return PipesDataProvenance(
        code_version=provenance.code_version,
        input_data_versions={_text(each): version.value for each, version in versions},
        is_user_provided=provenance.is_user_provided,
    )
