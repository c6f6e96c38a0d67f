"""What the payload is told of its step, and the file in the run directory by which it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_pipes import (
    PipesContextData,
    PipesDataProvenance,
    PipesParams,
    PipesPartitionKeyRange,
    PipesTimeWindow,
)

StepContext = dg.OpExecutionContext | dg.AssetExecutionContext

ASSET_CHECKS = "asset_checks"
"""The Pipes extra that names the checks of this run, in the words of ``report_asset_check``."""


_DIRECT = "EPHEMERAL"
"""The run's id in the context of a function that is called directly, as in a unit test (dagster 1.13)."""


def is_direct(context: StepContext) -> bool:
    """Whether a function was called directly, with a context that was built for it: there is no run then."""
    return context.run_id == _DIRECT


@dataclass(frozen=True)
class Selection:
    """What a step of assets makes in this run.

    Attributes:
        assets: The assets that are selected.
        checks: The checks that are selected.
        others: The assets and checks that the step declares and this run does not ask for.
    """

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

    @property
    def subjects(self) -> Sequence[dg.AssetKey]:
        """The assets that the payload deals with: those it makes, and those it only checks."""
        return sorted({*self.assets, *(check.asset_key for check in self.checks)})


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


def context_data(
    context: StepContext, chosen: Selection | None, extras: Mapping[str, Any] | None
) -> PipesContextData:
    """Return the Pipes context of a step.

    It is what ``dagster.open_pipes_session`` makes (dagster 1.13), and what that leaves out: a run of checks alone
    names their assets, so that ``report_asset_check`` works in the payload, and the extra ``asset_checks``; a run over
    a range of partitions names the range and, as the extra ``partition_keys``, all keys.

    Args:
        context: Dagster's context of the step.
        chosen: What the step makes.
        extras: Extras of the user's, which win.
    """
    keys = chosen.subjects if chosen else ()
    data = PipesContextData(
        asset_keys=[_text(key) for key in keys],
        code_version_by_asset_key={_text(key): _version(context, key) for key in keys},
        provenance_by_asset_key={_text(key): _provenance(context, key) for key in keys},
        partition_key=context.partition_key if context.has_partition_key else None,
        partition_key_range=_key_range(context),
        partition_time_window=_time_window(context),
        run_id=context.run_id,
        job_name=None if is_direct(context) else context.job_name,
        retry_number=0 if is_direct(context) else context.retry_number,
        extras={**_own_extras(context, chosen), **(extras or {})},
    )
    if chosen is None:  # by this a payload knows that its step makes no assets
        data["asset_keys"] = data["code_version_by_asset_key"] = data["provenance_by_asset_key"] = None
    return data


def _own_extras(context: StepContext, chosen: Selection | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if chosen is not None and any(
        isinstance(key, dg.AssetCheckKey) for key in (*chosen.checks, *chosen.others)
    ):
        checks = sorted(chosen.checks, key=lambda check: (check.asset_key, check.name))
        found[ASSET_CHECKS] = [
            {"asset_key": _text(check.asset_key), "check_name": check.name} for check in checks
        ]
    if context.has_partition_key_range and not context.has_partition_key:
        found["partition_keys"] = list(context.partition_keys)
    return found


def _text(key: dg.AssetKey) -> str:
    return key.to_escaped_user_string()


def _version(context: StepContext, key: dg.AssetKey) -> str | None:
    spec = context.assets_def.specs_by_key.get(key)  # a check's asset may be made elsewhere
    return spec.code_version if spec else None


def _provenance(context: StepContext, key: dg.AssetKey) -> PipesDataProvenance | None:
    found = context.get_asset_provenance(key)
    if found is None:
        return None
    return PipesDataProvenance(
        code_version=found.code_version,
        input_data_versions={
            _text(each): version.value for each, version in found.input_data_versions.items()
        },
        is_user_provided=found.is_user_provided,
    )


def _is_partitioned(context: StepContext) -> bool:
    return context.has_partition_key or context.has_partition_key_range


def _key_range(context: StepContext) -> PipesPartitionKeyRange | None:
    if not _is_partitioned(context):
        return None
    found = context.partition_key_range
    return PipesPartitionKeyRange(start=found.start, end=found.end)


def _time_window(context: StepContext) -> PipesTimeWindow | None:
    if not _is_partitioned(context):
        return None
    try:
        window = context.partition_time_window
    except dg.DagsterInvariantViolationError:
        return None  # its partitions are no windows of time
    return PipesTimeWindow(start=window.start.isoformat(), end=window.end.isoformat())


class RunDirectoryContextInjector(dg.PipesContextInjector):
    """Keeps the context for the bundle and tells the payload where it will find it.

    Args:
        path: The path of ``context.json`` on the host.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.content = b"{}"
        """The file's content, once the session is open."""

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Iterator[PipesParams]:
        """Serialize the context; the file itself travels with the bundle."""
        self.content = json.dumps(context_data).encode()
        yield {"path": self._path}

    def no_messages_debug_text(self) -> str:
        """Say where the payload was to find its context."""
        return f"The payload was given its Pipes context in {self._path}."
