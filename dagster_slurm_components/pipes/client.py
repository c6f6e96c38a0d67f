"""Runs one script for one step: submits, follows, and turns the end into results or a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from ..errors import DagsterSlurmError
from ..jobs.cancel import cancel
from ..jobs.events import MESSAGES, Ended
from ..jobs.model import JobHandle, JobIdentity
from ..jobs.outcome import judge
from ..jobs.submit import SubmitRejectedError, submit
from ..spec.resolve import ResolvedScript
from .context import RunDirectoryContextInjector
from .environment import activation_for
from .failure import failure, rejection
from .follow import Follower
from .job_spec import job_spec
from .metadata import job_metadata, typed
from .reader import RunDirectoryMessageReader
from .target import Target, target

Context = dg.OpExecutionContext | dg.AssetExecutionContext

_CANCEL_ANSWER = 120.0
_CANCEL_END = 90.0
_TERM_GRACE = 10.0


def run_script(
    context: Context, resolved: ResolvedScript, *, extras: Mapping[str, Any] | None = None
) -> dg.PipesClientCompletedInvocation:
    """Run a script as one job and return its results.

    Args:
        context: Dagster's context of the step.
        resolved: The script in its profile.
        extras: What the payload receives as Pipes extras.

    Raises:
        Failure: The payload failed, the job was stopped, or the scheduler refused it.
        DagsterSlurmError: The host refuses us, or a file of the script is missing.
    """
    place = target(resolved.profile)
    activation = activation_for(resolved, place, tell=context.log.info)
    identity = identify(context)
    run_dir = f"{place.workdir}/{identity.folder}"
    injector = RunDirectoryContextInjector(f"{run_dir}/context.json")
    reader = RunDirectoryMessageReader(f"{run_dir}/{MESSAGES}")
    with dg.open_pipes_session(
        context=context, context_injector=injector, message_reader=reader, extras=_extras(context, extras)
    ) as session:
        spec = job_spec(
            resolved,
            identity,
            activation=activation,
            context=injector.content,
            env={**session.get_bootstrap_env_vars(), "DAGSTER_SLURM_MESSAGES": f"{run_dir}/{MESSAGES}"},
        )
        try:
            handle = submit(place.satellite, place.scheduler, spec, place.workdir, tell=context.log.info)
        except SubmitRejectedError as error:
            raise rejection(error, resolved) from error
        context.log.info(
            f"Job {handle.job_id} {handle.outcome} on {place.satellite.host.name} "
            f"(profile {resolved.profile.name}), run directory {run_dir}"
        )
        ended, stderr = _follow(context, resolved, place, handle, reader)
    figures = job_metadata(
        handle,
        ended,
        profile=resolved.profile.name,
        host=place.satellite.host.name,
        submitted=handle.submitted,
    )
    outcome = judge(ended, stderr)
    if not outcome.success:
        raise failure(handle, outcome, resolved, exception=reader.exception, stderr=stderr, figures=figures)
    return dg.PipesClientCompletedInvocation(session, metadata=typed(figures))


def identify(context: Context) -> JobIdentity:
    """Return which job a step stands for: the same step of the same run and attempt gives the same job."""
    partition = None
    if context.has_partition_key:
        partition = context.partition_key
    elif context.has_partition_key_range:
        span = context.partition_key_range
        partition = f"{span.start}...{span.end}"
    return JobIdentity(
        run_id=context.run.run_id,
        step=context.get_step_execution_context().step.key,
        partition=partition,
        attempt=context.retry_number,
    )


def _extras(context: Context, extras: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Add what Pipes itself leaves out: a run over a range of partitions gives the payload no keys."""
    if context.has_partition_key or not context.has_partition_key_range:
        return dict(extras or {})
    return {"partition_keys": list(context.partition_keys), **(extras or {})}


def _follow(
    context: Context,
    resolved: ResolvedScript,
    place: Target,
    handle: JobHandle,
    reader: RunDirectoryMessageReader,
) -> tuple[Ended, str]:
    """Follow a job to its end; return how it ended and the last lines of its stderr."""
    watch = place.watcher.watch(handle)
    remote = place.satellite.host.name != "local"
    heal = f"To log in anew: dg-slurm login {resolved.profile.name}" if remote else ""
    follower = Follower(watch, reader, context.log, heal=heal)
    try:
        while (ended := follower.follow()) is None:
            pass
        return ended, follower.stderr_tail
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        if _cancel_wanted(context, resolved):
            _shielded(lambda: _cancel(context, place, handle, follower))
        else:
            context.log.info(f"This step ends; job {handle.job_id} goes on.")
        raise
    finally:
        watch.close()


def _cancel_wanted(context: Context, resolved: ResolvedScript) -> bool:
    """Return whether the interrupt means the job too: the run was terminated, or the profile says so.

    Any other end of the process (a redeployment, a closed laptop) leaves the job alone.
    """
    run = context.instance.get_run_by_id(context.run.run_id)
    terminated = run is not None and run.status is dg.DagsterRunStatus.CANCELING
    return terminated or resolved.profile.profile.on_shutdown == "cancel"


def _cancel(context: Context, place: Target, handle: JobHandle, follower: Follower) -> None:
    cancel(place.satellite, place.scheduler, handle, patience=_CANCEL_ANSWER)
    ended = follower.follow(_TERM_GRACE)
    if ended is None:
        cancel(place.satellite, place.scheduler, handle, patience=_CANCEL_ANSWER, force=True)
        ended = follower.follow(_CANCEL_END)
    if ended is None:
        context.log.warning(f"Job {handle.job_id} was cancelled, but its end is not confirmed yet.")
    else:
        context.log.info(f"Job {handle.job_id} was cancelled and has ended: {ended.observation.state}.")


def _shielded(work: Callable[[], None]) -> None:
    """Do something in a thread, which no second interrupt reaches (signals go to the main thread only)."""
    failed: list[DagsterSlurmError] = []

    def guarded() -> None:
        try:
            work()
        except DagsterSlurmError as error:
            failed.append(error)

    thread = threading.Thread(target=guarded, name="dagster-slurm-cancel")
    thread.start()
    while thread.is_alive():
        try:
            thread.join(timeout=0.5)
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
            continue
    if failed:
        raise failed[0]
