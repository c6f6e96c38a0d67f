"""What the payload is told of its step: the Pipes session of one job, and the context that it finds beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_pipes import PipesContextData, PipesDataProvenance, PipesPartitionKeyRange, PipesTimeWindow

from dagster_slurm_components.pipes.tags import MAY_LEAVE

StepContext = dg.OpExecutionContext | dg.AssetExecutionContext

ASSET_CHECKS = "asset_checks"
"""The Pipes extra that names the checks of this run, in the words of ``report_asset_check``."""
_DIRECT = "EPHEMERAL"
"""The run's id in the context of a function that is called directly, as in a unit test (dagster 1.13)."""
_NOT_HANDED_ON = (
    "Hand on what the payload reported: `yield from completed.get_results()`. A declared check is reported by the "
    "payload, with `report_asset_check`, or yielded beside those results."
)


def is_direct(context: StepContext) -> bool:
    """Whether a function was called directly, with a context that was built for it: there is no run then."""
    return context.run_id == _DIRECT


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
        context.set_requires_typed_event_stream(error_message=_NOT_HANDED_ON)
    handler = dg.PipesMessageHandler(context, reader)
    with handler.handle_messages() as messages:
        return dg.PipesSession(
            context_data=context_data(context, chosen, extras),
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
    span, window = _partitions(context)
    data = PipesContextData(
        asset_keys=[_text(key) for key in keys],
        code_version_by_asset_key={_text(key): _version(context, key) for key in keys},
        provenance_by_asset_key={_text(key): _provenance(context, key) for key in keys},
        partition_key=context.partition_key if context.has_partition_key else None,
        partition_key_range=span,
        partition_time_window=window,
        run_id=context.run_id,
        job_name=None if is_direct(context) else context.job_name,
        retry_number=0 if is_direct(context) else context.retry_number,
        extras={**_own_extras(context, chosen), **(extras or {})},
    )
    if chosen is None:  # by this a payload knows that its step makes no assets
        data["asset_keys"] = data["code_version_by_asset_key"] = data["provenance_by_asset_key"] = None
    return data


def range_keys(context: StepContext) -> list[str]:
    """Return the keys of a range of partitions, whose ends alone don't tell what lies between; else none."""
    is_range = context.has_partition_key_range and not context.has_partition_key
    return list(context.partition_keys) if is_range else []


def _own_extras(context: StepContext, chosen: Selection | None) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if chosen and any(isinstance(key, dg.AssetCheckKey) for key in (*chosen.checks, *chosen.others)):
        checks = sorted(chosen.checks, key=lambda check: (check.asset_key, check.name))
        own[ASSET_CHECKS] = [{"asset_key": _text(each.asset_key), "check_name": each.name} for each in checks]
    if keys := range_keys(context):
        own["partition_keys"] = keys
    return own


def _text(key: dg.AssetKey) -> str:
    return key.to_escaped_user_string()


def _version(context: StepContext, key: dg.AssetKey) -> str | None:
    spec = context.assets_def.specs_by_key.get(key)  # a check's asset may be made elsewhere
    return spec.code_version if spec else None


def _provenance(context: StepContext, key: dg.AssetKey) -> PipesDataProvenance | None:
    provenance = context.get_asset_provenance(key)
    if provenance is None:
        return None
    versions = provenance.input_data_versions.items()
    return PipesDataProvenance(
        code_version=provenance.code_version,
        input_data_versions={_text(each): version.value for each, version in versions},
        is_user_provided=provenance.is_user_provided,
    )


def _partitions(context: StepContext) -> tuple[PipesPartitionKeyRange | None, PipesTimeWindow | None]:
    """Return the range of a step's partitions, and the time that they span."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None, None
    keys, window = context.partition_key_range, time_window(context)
    span = PipesPartitionKeyRange(start=keys.start, end=keys.end)
    if window is None:
        return span, None
    return span, PipesTimeWindow(start=window.start.isoformat(), end=window.end.isoformat())


def time_window(context: StepContext) -> dg.TimeWindow | None:
    """Return the time that a step's partitions span; nothing where they are no windows of time."""
    try:
        return context.partition_time_window
    except dg.DagsterInvariantViolationError:
        return None
