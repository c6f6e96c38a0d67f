"""Failures as Dagster shows them: the payload's own exception first, then where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.outcome import JobOutcome
from dagster_slurm_components.jobs.submit import SubmitRejectedError
from dagster_slurm_components.pipes.metadata import Value, typed
from dagster_slurm_components.pipes.stuck import StuckError
from dagster_slurm_components.spec.resolve import ResolvedScript


def failure(
    handle: JobHandle,
    outcome: JobOutcome,
    resolved: ResolvedScript,
    *,
    exception: Mapping[str, Any] | None,
    stderr: str,
    figures: Mapping[str, Value],
) -> dg.Failure:
    """Return the failure of a job that ran.

    Args:
        handle: The job.
        outcome: How it ended.
        resolved: The script, to name the line to change.
        exception: The payload's exception as Pipes reported it, or nothing.
        stderr: The last lines of the job's stderr.
        figures: The job's metadata.
    """
    parts = [f"Job {handle.job_id}: {outcome.message}"]
    advice = [outcome.advice, _where(outcome.options, resolved)]
    parts += [text for text in advice if text]
    if exception:
        parts.append(_traceback(exception))
    if stderr.strip():
        parts.append(f"Last lines of stderr:\n{stderr}")
    parts.append(f"Run directory: {handle.run_dir}")
    return dg.Failure(
        description="\n\n".join(parts), metadata=typed(figures), allow_retries=outcome.retryable
    )


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


def _traceback(exception: Mapping[str, Any]) -> str:
    stack = "".join(exception.get("stack") or ())
    text = f"{exception.get('name') or 'Exception'}: {exception.get('message') or ''}"
    return f"The payload raised {text.strip()}\n{stack}".strip()
