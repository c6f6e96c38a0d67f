"""Failures as Dagster shows them: the payload's own exception first, then where, and what to do."""

import re
from collections.abc import Mapping, Set
from typing import Any

import dagster as dg
from dagster_pipes import PipesException

from dagster_slurm_components.jobs.figures import Figure
from dagster_slurm_components.jobs.outcome import JobOutcome
from dagster_slurm_components.pipes.context import StepContext
from dagster_slurm_components.pipes.results import typed
from dagster_slurm_components.spec.local_files import payload_problems
from dagster_slurm_components.spec.resolve import ResolvedScript

_TRACEBACK = "Traceback (most recent call last):"
_LONGEST = 16 * 1024
"""Characters of a message and of a traceback that are shown; all of it is among the step's events."""


def failure(
    outcome: JobOutcome,
    resolved: ResolvedScript,
    *,
    exception: PipesException | None,
    stderr: str,
    figures: Mapping[str, Figure],
    context: StepContext,
) -> dg.Failure:
    """Return the failure of a job that ran."""
    wrong = payload_problems(resolved.script, resolved.merged)
    where = "\n\n".join(filter(None, (_where(outcome.options, resolved), *map(str, wrong))))
    text = failure_text(outcome, where, exception=exception, stderr=stderr, figures=figures)
    # The author of an op with a retry policy knows that the payload may be run again. A policy of the job or of the
    # whole deployment was written for any op: there a payload's own failure, which would most likely come again after
    # hours, ends the step.
    retry = outcome.retryable or context.op_def.retry_policy is not None
    return dg.Failure(description=text, metadata=typed(figures), allow_retries=retry)


def failure_text(
    outcome: JobOutcome,
    where: str,
    *,
    exception: PipesException | None,
    stderr: str,
    figures: Mapping[str, Figure],
) -> str:
    """Return what is told of a job that ran and failed; ``where`` says what to change, if that is known."""
    look = f"dg-slurm jobs logs {figures['job/id']} --profile {figures['job/profile']}"
    parts = [
        f"Job {figures['job/id']}: {outcome.message}",
        outcome.advice,
        where,
        _traceback(exception) if exception else "",
        f"Last lines of stderr:\n{rest}" if (rest := _without_traceback(stderr, exception).strip()) else "",
        f"All its output: {look}\nRun directory: {figures['job/run_directory']}",
    ]
    return "\n\n".join(part for part in parts if part)


def no_start(text: str, options: tuple[str | None, ...], resolved: ResolvedScript) -> dg.Failure:
    """Return the failure of a job that never started: which resources keep it from that, and where they are written."""
    where = _where(tuple(filter(None, options)), resolved)
    return dg.Failure(description=f"{text}\n\n{where}" if where else text, allow_retries=False)


def unreported(
    script: str, resolved: ResolvedScript, missing: Set[tuple[Any, Any]], metadata: Mapping[str, Any]
) -> dg.Failure:
    """Return the failure of a job whose payload was silent about checks: nothing is known of the data, good or bad."""
    named = []
    for at, check in enumerate(resolved.script.checks):
        if (dg.AssetKey.from_escaped_user_string(check.asset), check.name) in missing:
            named.append(
                f"`{check.name}` of asset `{check.asset}`, declared at {resolved.position('checks', at)}"
            )
    folder = metadata.get("job/run_directory")
    text = (
        f"The job of script `{script}` ended well, but its payload did not report the check {' and '.join(named)}. "
        "What it did report is stored.\n\nReport it in the payload, with `report_asset_check`, or take it out of "
        f"`checks`.{f' Run directory: {folder.value}' if folder else ''}"
    )
    return dg.Failure(text, allow_retries=False)


def _where(options: tuple[str, ...], resolved: ResolvedScript) -> str:
    """Name the lines to change: those of these resources that somebody wrote down."""
    asked = resolved.merged.data.get("resources") or {}
    written = {
        option: position
        for option in options
        if asked.get(option) is not None and (position := resolved.position("resources", option))
    }
    if written or not options:
        return " ".join(f"`{option}: {asked[option]}` is written at {at}." for option, at in written.items())
    place = resolved.position("payload") or resolved.position("command")
    beside = f", for what is written at {place}" if place else ""
    return f"It would be set by `{options[0]}` under `resources`{beside}."


def _without_traceback(stderr: str, exception: PipesException | None) -> str:
    """Leave the traceback of the exception that is shown already out of stderr; what its causes say stays there."""
    message = exception["message"].strip("\n") if exception else ""
    before, found, after = f"{stderr}\n".rpartition(f"\n{message}\n")
    if exception is None or not message or not found:
        return stderr
    # From its end: what is known of stderr may begin in the midst of it, and others may have been logged before.
    own = {_TRACEBACK, *(line.strip() for line in "".join(exception["stack"]).splitlines())}
    lines = before.splitlines()
    while lines and (lines[-1].strip() in own or not lines[-1].strip(" ~^")):
        lines.pop()
    return "\n".join([*lines, after])


def _traceback(exception: PipesException) -> str:
    stack = "".join(exception["stack"])
    name, message = exception["name"] or "", exception["message"].strip()[:_LONGEST]
    # Python's own message has the name already: with the module before it, or below the line that it can't read.
    named = re.search(rf"^(?:\w+\.)*{re.escape(name)}(?!\w)", message, re.MULTILINE)
    text = message if named else f"{name}: {message}"
    end = stack if len(stack) <= _LONGEST else f"...\n{stack[-_LONGEST:]}"
    return f"The payload raised {text or 'an exception'}\n{end}".strip()
