"""The Pipes session of one job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from dagster_slurm_components.pipes.context import (
    RunDirectoryContextInjector,
    StepContext,
    context_data,
    selection,
)
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader

_NOT_HANDED_ON = (
    "Hand on what the payload reported: `yield from completed.get_results()`. A declared check is reported by the "
    "payload, with `report_asset_check`, or yielded beside those results."
)


@contextmanager
def open_session(
    context: StepContext,
    injector: RunDirectoryContextInjector,
    reader: RunDirectoryMessageReader,
    extras: Mapping[str, Any] | None = None,
) -> Iterator[dg.PipesSession]:
    """Open a session, as ``dagster.open_pipes_session`` does (dagster 1.13), but for three things.

    Silence is no warning: the exit status decides, and no message is ever lost in a buffer. A step with skippable
    assets may leave them out: Dagster's own session makes a missing one an error. A run of checks alone tells the
    payload which.

    Args:
        context: Dagster's context of the step.
        injector: Writes the context.
        reader: Takes the messages; it is told here what the step makes.
        extras: The payload's extras.
    """
    chosen = selection(context)
    reader.expect(chosen)
    if chosen is not None and not any(is_skippable(context, key) for key in chosen.assets):
        context.set_requires_typed_event_stream(error_message=_NOT_HANDED_ON)
    data = context_data(context, chosen, extras)
    handler = dg.PipesMessageHandler(context, reader)
    with injector.inject_context(data) as where, handler.handle_messages() as messages:
        yield dg.PipesSession(
            context_data=data,
            message_handler=handler,
            context_injector_params=where,
            message_reader_params=messages,
            context=context,
        )


def is_skippable(context: StepContext, key: dg.AssetKey) -> bool:
    """Return whether a step may leave an asset out."""
    return context.assets_def.specs_by_key[key].skippable
