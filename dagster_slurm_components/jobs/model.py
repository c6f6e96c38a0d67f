"""The data of a job: who it is, what it consists of, and where it lives."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.launchers.base import LaunchPlan

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 80
CALL = "call="
"""Begins the name of a call's folder; no step's or partition's folder has a ``=`` in its name."""
ELEMENTS = "elements"
"""The folder of an array's run directory that holds a run directory for each of its elements, by number."""

LEFT_JOBS = "left-"
"""Begins the name of a folder in which runs meet that leave the same job; no run's id begins so."""


def slug(text: str) -> str:
    """Return a name for a folder or a job that no shell, file system or Slurm format trips over.

    Text that is already safe stays as it is; any other keeps its readable part and gets a hash of the whole, so
    that two texts never share a name.

    Example:
        >>> slug("train"), slug("2026-01-01|a b")
        ('train', '2026-01-01-a-b.8fd5b0ac')
    """
    readable = _UNSAFE.sub("-", text).strip("-.")
    if readable and readable == text and len(text) <= _LONGEST_NAME:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{readable[: _LONGEST_NAME - 9] or '_'}.{digest}"


@dataclass(frozen=True)
class JobIdentity:
    """What makes a job this one and no other: submitting the same identity twice gives one job.

    Attributes:
        run_id: Id of Dagster's first run: those that re-execute it find the same folders.
        partition: The partition key or the range of them, or none.
        attempt: The number of the submission, from 0: retries of the run or the step go on counting.
        call: The number of the call in the step, from 0; a script is one call.
    """

    run_id: str
    step: str
    partition: str | None = None
    attempt: int = 0
    call: int = 0

    def next(self) -> JobIdentity:
        """Return the identity of another attempt."""
        return replace(self, attempt=self.attempt + 1)

    @property
    def call_folder(self) -> PurePosixPath:
        """The folder of all attempts at a call, relative to the profile's workdir."""
        folder = PurePosixPath("runs", slug(self.run_id), slug(self.step))
        folder = folder / slug(self.partition) if self.partition is not None else folder
        return folder / f"{CALL}{self.call}" if self.call else folder

    @property
    def token(self) -> str:
        """Sixteen hex digits that stand in the job's name and comment, to find it again by."""
        parts = json.dumps((self.run_id, self.step, self.partition, self.call, self.attempt))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    @property
    def job_name(self) -> str:
        """The job's name in the queue: the readable step and the token."""
        return f"{slug(self.step)}-{self.token}"

    @property
    def folder(self) -> PurePosixPath:
        """The run directory, relative to the profile's workdir."""
        return self.call_folder / str(self.attempt)


@dataclass(frozen=True)
class JobArray:
    """What makes a job an array.

    Attributes:
        own: The files that are not the same in all elements, by element.
        keys_per_task: How many elements each task runs, one after the other.
        max_parallel: How many tasks run at a time, if that is limited.
    """

    own: Mapping[int, Mapping[str, bytes]]
    keys_per_task: int = 1
    max_parallel: int | None = None

    @property
    def tasks(self) -> tuple[tuple[int, ...], ...]:
        """The elements of each task; a task has the number of its first."""
        return tasks_of(self.own, self.keys_per_task)


def tasks_of(elements: Iterable[int], keys_per_task: int) -> tuple[tuple[int, ...], ...]:
    """Return the elements of each task.

    Example:
        >>> tasks_of([0, 1, 2, 7, 9], 2)
        ((0, 1), (2, 7), (9,))
    """
    order = sorted(elements)
    return tuple(tuple(order[at : at + keys_per_task]) for at in range(0, len(order), keys_per_task))


@dataclass(frozen=True)
class JobSpec:
    """Everything that is sent to the host to start one job.

    Attributes:
        sbatch: Slurm options, name and value, in the order they are rendered; ignored by a plain process.
        env: The payload's environment variables, secrets included; they travel in a file of mode 0600.
        export: Variables of the host's login that the payload inherits, beside those that all do.
        context: Content of ``context.json``.
        partition_keys: All keys of a range of partitions, for a file of their own.
        left: What whoever reports a left job's results has to know, for a file of its own.
        files: Local files, by their places below the run directory's ``payload`` folder.
        requeues: How often the job puts itself back into the queue after it wrote a checkpoint.
        sampler: Whether it is written down what the job uses.
        outputs: What the payload is to make, as its collector is told.
        stage: The node's folder below which the payload works on copies, if it does.
        array: The elements of a job array, for which everything else is the same.
    """

    identity: JobIdentity
    launch: LaunchPlan
    activation: Activation
    sbatch: tuple[tuple[str, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    export: tuple[str, ...] = ()
    context: bytes = b"{}"
    partition_keys: tuple[str, ...] = ()
    left: bytes = b""
    files: Mapping[PurePosixPath, Path] = field(default_factory=dict)
    requeues: int = 0
    sampler: bool = True
    outputs: tuple[Mapping[str, Any], ...] = ()
    stage: str | None = None
    array: JobArray | None = None


@dataclass(frozen=True)
class JobHandle:
    """A submitted job: enough to watch, cancel or find it from any process.

    Attributes:
        job_id: Slurm's id, or the process's identity.
        outcome: ``submitted``, ``known`` (the ledger had it) or ``adopted`` (found by its token).
        submitted: When it was submitted, in seconds since the epoch, where that is known.
    """

    job_id: str
    run_dir: str
    outcome: str = "submitted"
    submitted: float | None = None

    def file(self, name: str) -> str:
        """Return the path of a file in the run directory."""
        return f"{self.run_dir}/{name}"

    def element(self, number: int, job_id: str) -> JobHandle:
        """Return an element of an array, which runs as the task ``job_id`` in a run directory of its own."""
        return replace(self, job_id=job_id, run_dir=self.file(f"{ELEMENTS}/{number}"))
