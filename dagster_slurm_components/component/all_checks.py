"""Looks that a step reports all checks that its script declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from dagster_slurm_components.component.specs import SlurmScript


def with_all_checks(
    results: Iterable[Any], context: dg.AssetExecutionContext, script: SlurmScript
) -> Iterator[Any]:
    """Yield the results of a step; when they end, all selected checks must have been among them.

    By then Dagster has stored them. Its own error would name an output and no line (dagster 1.13).

    Args:
        results: What the step yields.
        context: Dagster's context of the step.
        script: The script.

    Raises:
        Failure: A check is missing.
    """
    reported: list[dg.AssetCheckResult] = []
    for result in results:
        if isinstance(result, dg.AssetCheckResult):
            reported.append(result)
        elif isinstance(result, dg.MaterializeResult):
            reported += result.check_results or ()
        yield result
    if any(result.asset_key is None or result.check_name is None for result in reported):
        return  # Dagster finds out which check is meant
    names = {(result.asset_key, result.check_name) for result in reported}
    missing = [
        index
        for index, check in enumerate(script.checks)
        if check.key in context.selected_asset_check_keys and (check.asset_key, check.name) not in names
    ]
    if missing:
        raise _failure(missing, script)


def _failure(missing: list[int], script: SlurmScript) -> dg.Failure:
    told = []
    for index in missing:
        check, position = script.checks[index], script.entry.script.position(("checks", index))
        declared = f", declared at {position}" if position else ""
        told.append(f"`{check.name}` of asset `{_key(check)}`{declared}")
    first = script.checks[missing[0]]
    call = f'report_asset_check(check_name="{first.name}", asset_key="{_key(first)}", passed=...)'
    text = (
        f"The job of script `{script.name}` ended well, but its payload did not report the check {' and '.join(told)}. "
        f"What it did report is stored.\n\nReport it in the payload, with `{call}`, or take it out of `checks`."
    )
    return dg.Failure(text, allow_retries=False)


def _key(check: dg.AssetCheckSpec) -> str:
    return check.asset_key.to_escaped_user_string()
