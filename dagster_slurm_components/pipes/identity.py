"""Which job a step stands for: a new one, or the one that an earlier process left behind."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import dagster as dg

from dagster_slurm_components.jobs.look import look
from dagster_slurm_components.jobs.model import JobIdentity
from dagster_slurm_components.pipes.launches import Launch, history, last_launch, record_end, this_supervisor
from dagster_slurm_components.pipes.target import Target

Context = dg.OpExecutionContext | dg.AssetExecutionContext


@dataclass(frozen=True)
class Beginning:
    """Where a step begins.

    Attributes:
        launch: The launch that is about to be written down.
        adopted: Whether it continues a job that may exist already.
        step_worker: Whether this process is the step's own, below a run worker.
    """

    launch: Launch
    adopted: bool
    step_worker: bool


def partition_of(context: Context) -> str | None:
    """Return the partition that a step is for, or the range of them."""
    if context.has_partition_key:
        return str(context.partition_key)
    if context.has_partition_key_range:
        span = context.partition_key_range
        return f"{span.start}...{span.end}"
    return None


def begin(context: Context, place: Target, profile: str, fingerprint: str) -> Beginning:
    """Return where a step begins.

    The last launch of the same step and partition, in this run or in those it re-executes, is continued if its
    content is the same and its job lives or did its work. After a job that failed comes the next attempt.
    """
    instance, run = context.instance, context.run
    step, partition = context.get_step_execution_context().step.key, partition_of(context)
    own = history(instance, run.run_id)
    step_worker = os.getpid() in own.workers.get(step, frozenset())
    fresh = Launch(
        identity=JobIdentity(run.run_id, step, partition),
        profile=profile,
        host=place.satellite.host.name,
        run_dir="",
        fingerprint=fingerprint,
        supervisor=this_supervisor(step_worker=step_worker),
    )
    last = last_launch(instance, run, own, step, partition)
    adopted = False
    if last is not None and not last.same_content(fresh):
        if last.identity.run_id == run.run_id:
            fresh = replace(fresh, identity=last.identity.next())
        if last.ended is None:
            context.log.warning(
                f"The job {last.identity.job_name} of an earlier try has other content, so a new one is submitted. "
                f"The earlier one may still run: {last.run_dir} on {last.host}."
            )
    elif last is not None:
        adopted = last.ended is None and not _failed(context, place, last)
        identity = last.identity if adopted else last.identity.next()
        fresh = replace(fresh, identity=identity)
        if adopted:
            fresh = replace(fresh, retries=last.retries, changed=last.changed)
    return Beginning(at(fresh, place), adopted, step_worker)


def at(launch: Launch, place: Target) -> Launch:
    """Return the launch with its run directory."""
    return replace(launch, run_dir=f"{place.workdir}/{launch.identity.folder}")


def _failed(context: Context, place: Target, last: Launch) -> bool:
    """Whether a job that nobody followed has ended meanwhile, without success."""
    seen = look(place.satellite, place.scheduler, last.run_dir, last.identity.token)
    if seen is None or not seen.ended_badly:
        return False
    word = seen.observation.state
    context.log.warning(
        f"Job {seen.handle.job_id} of an earlier try ended meanwhile: {word}. Its output is in {last.run_dir}."
    )
    record_end(context.instance, context.run, last.identity, word)
    return True
