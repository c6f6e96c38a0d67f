"""Failures as Dagster shows them: the payload's own exception first, then where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
from dagster_pipes import PipesException

from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.outcome import JobOutcome
from dagster_slurm_components.jobs.stuck import StuckError
from dagster_slurm_components.jobs.submit import SubmitRejectedError
from dagster_slurm_components.pipes.metadata import Value, typed
from dagster_slurm_components.spec.resolve import ResolvedScript

_LONGEST = 16 * 1024
"""Characters of a message and of a traceback that are shown; all of it is among the step's events."""


def failure(
    handle: JobHandle,
    outcome: JobOutcome,
    resolved: ResolvedScript,
    *,
    exception: PipesException | None,
    stderr: str,
    figures: Mapping[str, Value],
    allow_retries: bool,
) -> dg.Failure:
    """Return the failure of a job that ran.

    Args:
        handle: The job.
        outcome: How it ended.
        resolved: The script, to name the line to change.
        exception: The payload's exception as Pipes reported it, or nothing.
        stderr: The last lines of the job's stderr.
        figures: The job's metadata.
        allow_retries: Whether Dagster may run the step again, where a retry policy says so.
    """
    parts = [f"Job {handle.job_id}: {outcome.message}"]
    advice = [outcome.advice, _where(outcome.options, resolved)]
    parts += [text for text in advice if text]
    if exception:
        parts.append(_traceback(exception))
    if stderr.strip():
        parts.append(f"Last lines of stderr:\n{stderr}")
    parts.append(f"Run directory: {handle.run_dir}")
    return dg.Failure(description="\n\n".join(parts), metadata=typed(figures), allow_retries=allow_retries)


def has_retry_policy(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> bool:
    """Return whether the op itself has a retry policy.

    Its author knows that the payload may be run again. One of the job or of the whole deployment was written for any
    op: there a payload's own failure, which would most likely come again after hours, ends the step.
    """
    return context.op_def.retry_policy is not None


def rejection(error: SubmitRejectedError, resolved: ResolvedScript) -> dg.Failure:
    """Return the failure of a job that the scheduler refused."""
    option = error.rejection.option
    parts = [f"The scheduler refused the job: {error}", _where((option,) if option else (), resolved)]
    return dg.Failure(description="\n\n".join(part for part in parts if part), allow_retries=False)


def stuck_failure(error: StuckError, resolved: ResolvedScript) -> dg.Failure:
    """Return the failure of a job that waited for something that would not come."""
    option = error.reason.option
    parts = [str(error), _where((option,) if option else (), resolved)]
    return dg.Failure(description="\n\n".join(part for part in parts if part), allow_retries=False)


def _where(options: tuple[str, ...], resolved: ResolvedScript) -> str:
    """Name the line to change: the first of these resources that somebody wrote down."""
    for option in options:
        asked = resolved.merged.data.get("resources") or {}
        position = resolved.position("resources", option) if asked.get(option) is not None else None
        if position:
            return f"`{option}: {asked[option]}` is written at {position}."
    return f"It would be set by `{options[0]}` under `resources`." if options else ""


def _traceback(exception: PipesException) -> str:
    stack = "".join(exception["stack"])
    name, message = exception["name"] or "", exception["message"].strip()[:_LONGEST]
    # Python's own message begins with the name already.
    text = message if message.startswith(name) else f"{name}: {message}"
    return f"The payload raised {text or 'an exception'}\n{_last(stack)}".strip()


def _last(text: str) -> str:
    return text if len(text) <= _LONGEST else f"...\n{text[-_LONGEST:]}"
