"""A step that leaves its job: it ends when the job is in the queue, and writes down what the sensor has to know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import dagster as dg

from dagster_slurm_components.jobs.events import MESSAGES
from dagster_slurm_components.jobs.into import ready_command
from dagster_slurm_components.jobs.lease import LEFT as LEFT_TO_THE_SENSOR
from dagster_slurm_components.jobs.look import observe
from dagster_slurm_components.jobs.model import LEFT_JOBS, JobHandle, JobIdentity
from dagster_slurm_components.jobs.reconcile import Observation
from dagster_slurm_components.pipes.asset_events import Origin, origins
from dagster_slurm_components.pipes.attempt import AttemptRun
from dagster_slurm_components.pipes.claim import JobCall
from dagster_slurm_components.pipes.client import carry_out
from dagster_slurm_components.pipes.context import (
    Selection,
    StepContext,
    is_direct,
    open_session,
    partition_of,
    selection,
)
from dagster_slurm_components.pipes.guard import SupervisionLostError
from dagster_slurm_components.pipes.reader import RunDirectoryMessageReader
from dagster_slurm_components.pipes.step import location_of, next_calls
from dagster_slurm_components.pipes.tags import LEFT
from dagster_slurm_components.spec.resolve import ResolvedScript

Partition = str | Mapping[str, str]
"""A partition's key; of several dimensions, by dimension."""


@dataclass(frozen=True)
class LeftCheck:
    """A check that a left job's payload reports."""

    asset: str
    name: str
    blocking: bool
    partitioned: bool

    @property
    def key(self) -> dg.AssetCheckKey:
        """Dagster's key of it."""
        return dg.AssetCheckKey(dg.AssetKey.from_escaped_user_string(self.asset), self.name)


@dataclass(frozen=True)
class LeftRecord:
    """What a left job makes: ``left.json`` in its run directory.

    Attributes:
        run_id: The run that submitted it.
        assets: Those that were selected, an asset after those it depends on.
        checks: Those that were selected, and those of other assets that the op declares too.
        unselected: Assets and names of checks that are declared and were not asked for.
        partitions: The keys; none where the assets have no partitions.
        asked: What that run asked for, as figures tell it.
    """

    run_id: str
    job_name: str
    step: str
    assets: tuple[Origin, ...]
    checks: tuple[LeftCheck, ...]
    unselected: tuple[tuple[str, str | None], ...]
    partitions: tuple[Partition, ...]
    asked: Mapping[str, str] = field(default_factory=dict)

    def dumps(self) -> bytes:
        """Return it as the file holds it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def loads(cls, data: bytes) -> LeftRecord:
        """Read the file; raises ValueError, TypeError or KeyError where it is none."""
        raw: dict[str, Any] = json.loads(data)
        lists = {
            "assets": tuple(Origin(**each) for each in raw["assets"]),
            "checks": tuple(LeftCheck(**each) for each in raw["checks"]),
            "unselected": tuple((asset, check) for asset, check in raw["unselected"]),
            "partitions": tuple(raw["partitions"]),
        }
        return cls(**{**raw, **lists})

    @property
    def keys(self) -> tuple[dg.AssetKey, ...]:
        """The keys of the assets, in their order."""
        return tuple(asset.asset_key for asset in self.assets)

    @property
    def partition_keys(self) -> tuple[str | None, ...]:
        """The partitions as Dagster's events name them; one ``None`` where there are none."""
        if not self.partitions:
            return (None,)
        return tuple(key if isinstance(key, str) else dg.MultiPartitionKey(key) for key in self.partitions)

    @property
    def selection(self) -> Selection:
        """What a payload may report."""
        others: set[dg.AssetKey | dg.AssetCheckKey] = set()
        for asset, check in self.unselected:
            key = dg.AssetKey.from_escaped_user_string(asset)
            others.add(key if check is None else dg.AssetCheckKey(key, check))
        checks = frozenset(check.key for check in self.checks) - others
        return Selection(frozenset(self.keys), checks, frozenset(others))


def record_of(context: StepContext, chosen: Selection) -> LeftRecord:
    """Return what is written down of a step that leaves its job."""
    check_specs = context.assets_def.node_check_specs_by_output_name.values()
    unselected = (
        (each.asset_key, each.name) if isinstance(each, dg.AssetCheckKey) else (each, None)
        for each in chosen.others
    )
    return LeftRecord(
        run_id=context.run_id,
        job_name=context.job_name,
        step=context.get_step_execution_context().step.key,
        assets=origins(context, chosen.assets),
        checks=tuple(
            LeftCheck(_text(spec.asset_key), spec.name, spec.blocking, spec.partitions_def is not None)
            for spec in check_specs
        ),
        unselected=tuple(sorted(((_text(key), name) for key, name in unselected), key=str)),
        partitions=_partitions(context),
    )


def _partitions(context: StepContext) -> tuple[Partition, ...]:
    partition = partition_of(context)
    keys = partition.keys if partition.key is None else (partition.key,)
    return tuple(
        dict(key.keys_by_dimension) if isinstance(key, dg.MultiPartitionKey) else str(key) for key in keys
    )


def _text(key: dg.AssetKey) -> str:
    return key.to_escaped_user_string()


def left_jobs_of(instance: dg.DagsterInstance) -> str:
    """Return how the folders begin in which a Dagster instance keeps the attempts at its left jobs."""
    storage = instance.run_storage
    # Telemetry tells instances apart by it, too (dagster 1.13); a storage that is none of SQL has none.
    name = storage.get_run_storage_id() if hasattr(storage, "get_run_storage_id") else ""
    return f"{LEFT_JOBS}{_hash(name)}"


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


class LeftCall(JobCall):
    """A call whose job is left.

    All runs of a code location that make the same assets for the same partition meet in one folder, whether they
    re-execute one another or not: so there is never a second job beside one that goes on.
    """

    @cached_property
    def record(self) -> LeftRecord:
        """What the sensor has to know."""
        context = self.step.context
        chosen = selection(context) or Selection(frozenset(), frozenset(), frozenset())
        return replace(record_of(context, chosen), asked=self.resolved.profile.run.figures)

    @property
    def identity(self) -> JobIdentity:
        """Which job its first attempt is."""
        record = self.record
        made = sorted([asset.key for asset in record.assets] + [f"{c.asset}:{c.name}" for c in record.checks])
        name = f"{left_jobs_of(self.step.instance)}-{_hash(location_of(self.step.run), *made)}"
        return replace(self.step.identity(self.number), run_id=name)

    @property
    def may_have_been_tried(self) -> bool:
        """Whether there may be attempts at it already: any run may have left some."""
        return True

    @property
    def upstream(self) -> Mapping[str, str]:
        """The newest event of each asset that its job reads.

        Assets with partitions are left out: the newest event may be about any of them.
        """
        layer = self.step.context.get_step_execution_context().job_def.asset_layer
        inputs = {key: event for asset in self.record.assets for key, (_, event) in asset.inputs.items()}
        return {
            key: str(event)
            for key, event in inputs.items()
            if layer.get(dg.AssetKey.from_escaped_user_string(key)).partitions_def is None
        }

    def upstream_now(self, before: Mapping[str, str]) -> Mapping[str, str]:
        """Return the newest event of each asset now."""
        return self.upstream

    @property
    def left_record(self) -> bytes:
        """What is written down for whoever reports the results."""
        return self.record.dumps()


def leave_script(context: StepContext, resolved: ResolvedScript) -> Iterator[dg.AssetObservation]:
    """Submit a script's job and leave it to the sensor; yield an observation of each asset.

    A job of the same content that was left before, and waits or runs, is not submitted again.

    Raises:
        Failure: The scheduler refused the job, or the definitions were loaded for a script that waits for it.
        DagsterSlurmError: The host refuses us, or a file of the script is missing.
    """
    if is_direct(context) or any(out.is_required for out in context.op_def.output_defs):
        raise dg.Failure(
            f"`leave` is set for this script in the profile {resolved.profile.name}, and was not when its definitions "
            "were loaded. Load them in this profile, and run it in Dagster: reload the code location.",
            allow_retries=False,
        )
    step, (number,) = next_calls(context)
    call = LeftCall(step, resolved, number, {})
    handle, observation = step.calls.run(lambda stop: carry_out(call, stop, LeaveAttempt), name=step.key)
    more = {
        "job/host": call.place.satellite.host.name,
        "job/profile": resolved.profile.name,
        "job/shell": ready_command("shell", handle, resolved.profile.name),
    }
    yield from observations(
        call.record, {**waiting(handle, observation), **more, **resolved.profile.run.figures}
    )


class LeaveAttempt(AttemptRun[LeftCall, tuple[JobHandle, Observation]]):
    """Submits one job, or takes up the one there is, and leaves it to the sensor."""

    def perform(self) -> tuple[JobHandle, Observation]:
        """Submit it, and write down that nobody follows it."""
        call, context = self.call, self.call.step.context
        reader = RunDirectoryMessageReader(f"{self._run_dir}/{MESSAGES}")
        session = open_session(context, reader, self._run_dir, call.extras, leaves=True)
        partition = partition_of(context)
        handle, _ = self._submit(lambda: self._spec(call.resolved, session, partition, self._run_dir))
        if call.place.leases.change(self._run_dir, self.claim.lease.epoch, LEFT_TO_THE_SENSOR) is None:
            raise SupervisionLostError(f"The job in {self._run_dir} is somebody else's by now.")
        context.log.info(
            f"This step ends; job {handle.job_id} is left to the sensor `slurm_jobs`, which reports what comes of it. "
            f"To cancel it: dg-slurm jobs cancel {handle.job_id} --profile {call.resolved.profile.name}"
        )
        # Of a job that was left before more may be known. Of a new one nothing is, so that nobody is asked.
        if not self.claim.adopted:
            return handle, Observation()
        return handle, observe(call.place, [(handle, None)])[handle.run_dir].observation


def waiting(handle: JobHandle, observation: Observation) -> dict[str, Any]:
    """Return what an observation tells of a job that is not over."""
    told: dict[str, Any] = {
        "job/id": handle.job_id,
        "job/state": observation.state,
        "job/run_directory": dg.MetadataValue.path(handle.run_dir),
    }
    if observation.starts_at is not None:
        told["job/expected_start"] = dg.MetadataValue.timestamp(float(observation.starts_at))
    if observation.reason:
        told["job/reason"] = observation.reason
    return told


def observations(record: LeftRecord, metadata: Mapping[str, Any]) -> Iterator[dg.AssetObservation]:
    """Yield an observation of each asset that a left job makes, in each partition."""
    # A run of checks alone makes nothing of what they are about.
    for key in record.keys or sorted({check.asset_key for check in record.selection.checks}):
        for partition in record.partition_keys:
            yield dg.AssetObservation(key, partition=partition, metadata=metadata, tags={LEFT: "true"})
