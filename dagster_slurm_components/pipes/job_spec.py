"""From a resolved script to a job: everything that will be sent, and nothing sent yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePosixPath

from ..environments.plan import plan_environment
from ..errors import DagsterSlurmError
from ..jobs.model import JobIdentity, JobSpec, PayloadFile
from ..launchers.payload import payload_argv
from ..launchers.registry import LaunchContext, plan
from ..spec.resolve import ResolvedScript


def place(path: str) -> PurePosixPath:
    """Return where a path of a YAML file lies below the payload folder: itself, without leading ``..``.

    >>> str(place("../../workloads/train.py"))
    'workloads/train.py'
    """
    parts = PurePosixPath(os.path.normpath(path)).parts
    while parts and parts[0] in ("..", ".", "/"):
        parts = parts[1:]
    return PurePosixPath(*parts)


def job_spec(
    resolved: ResolvedScript,
    identity: JobIdentity,
    *,
    context: bytes = b"{}",
    env: Mapping[str, str] | None = None,
) -> JobSpec:
    """Return the job that a script stands for in its profile. Reads the payload's files, and nothing else.

    Args:
        resolved: The script in one profile.
        identity: Which run, step, partition and attempt it is for.
        context: Content of ``context.json``.
        env: Variables that this project sets, beside the user's.

    Raises:
        DagsterSlurmError: A file is missing, or the environment is not to be had on this host.
    """
    script, profile = resolved.script, resolved.profile
    payload = str(place(script.payload)) if script.payload is not None else None
    argv = payload_argv(payload, script.command, script.args)
    launch = plan(script.launcher, argv, LaunchContext(script.resources, profile.profile.scheduler))
    activation = plan_environment(script.environment, profile.profile.host)
    asked = dict(script.resources.sbatch_options())
    options = {**launch.sbatch, **asked}
    return JobSpec(
        identity=identity,
        launch=launch,
        activation=activation,
        sbatch=tuple(options.items()),
        env={
            **activation.env,
            **launch.env,
            **script.env,
            "DAGSTER_SLURM_PROFILE": profile.name,
            **(env or {}),
        },
        context=context,
        files=_files(resolved),
    )


def _files(resolved: ResolvedScript) -> tuple[PayloadFile, ...]:
    payload = resolved.payload_file()
    found: dict[PurePosixPath, PayloadFile] = {}
    for file in (*((payload,) if payload else ()), *resolved.files()):
        where = place(os.path.relpath(file, resolved.folder))
        other = found.setdefault(where, PayloadFile(where, file))
        if other.source != file:
            raise DagsterSlurmError(
                f"both {other.source} and {file} would travel as {where}",
                where=str(resolved.position("files") or resolved.folder),
                hint="Rename one of them.",
            )
    return tuple(found.values())
