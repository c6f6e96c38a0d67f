"""The Python face: ``ComputeResource``, whose ``run`` does what a script in YAML does."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_slurm_components.pipes.client import run_script
from dagster_slurm_components.spec.environments import EnvironmentSpec
from dagster_slurm_components.spec.launchers import LauncherSpec
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.place import Path as KeyPath
from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.resolve import ResolvedScript, resolve_script
from dagster_slurm_components.spec.resources import Resources


class ComputeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Runs payloads wherever the profile says: this machine, a workstation, a cluster.

    Attributes:
        profile: The profile's name; by default ``DAGSTER_SLURM_PROFILE``, else ``local``.
        project: Folder from which ``profiles/`` is looked for, upward; by default the folder of the code that
            calls ``run``.

    Example:
        .. code-block:: python

            @dg.asset
            def train(context: dg.AssetExecutionContext, compute: ComputeResource):
                completed = compute.run(context=context, payload_path="train.py", args=["--epochs", "3"])
                yield from completed.get_results()
    """

    profile: str | None = None
    project: str | None = None

    def run(
        self,
        *,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        payload_path: str | Path | None = None,
        command: Sequence[str] | None = None,
        args: Sequence[str] = (),
        launcher: LauncherSpec | Mapping[str, Any] | None = None,
        resources: Resources | Mapping[str, Any] | None = None,
        environment: EnvironmentSpec | Mapping[str, Any] | None = None,
        files: Sequence[str] = (),
        extra_env: Mapping[str, str] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> dg.PipesClientCompletedInvocation:
        """Run a payload as one job and wait for its end.

        What is left out comes from the profile, as for a script in YAML.

        Args:
            context: Dagster's context of the asset or op.
            payload_path: The payload; a relative path starts at the folder of the calling code.
            command: A program and its arguments, instead of a payload file.
            args: The payload's arguments.
            launcher: How it starts; by default ``bash``.
            resources: What Slurm is asked for.
            environment: The software it runs in.
            files: Files or globs that travel along, relative to the calling code.
            extra_env: Environment variables, never shown in scripts or argument lists.
            extras: What the payload receives as Pipes extras.

        Returns:
            The completed invocation: ``yield from completed.get_results()``.

        Raises:
            SpecError: An argument is wrong; the message names it.
            Failure: The payload failed, or the scheduler refused the job.
        """
        folder = _calling_folder()
        script: dict[str, Any] = {
            "payload": str(payload_path) if payload_path is not None else None,
            "command": list(command) if command is not None else None,
            "args": [str(arg) for arg in args] or None,
            "launcher": _tree(launcher),
            "resources": _tree(resources),
            "environment": _tree(environment),
            "files": list(files) or None,
            "env": dict(extra_env) if extra_env else None,
        }
        return run_script(context, self.resolve(script, folder), extras=extras)

    def resolve(self, script: Mapping[str, Any], folder: Path) -> ResolvedScript:
        """Return a script, as a mapping, merged with the profile; relative paths start at ``folder``."""
        profile = load_profile(self.profile, start=Path(self.project) if self.project else folder)
        given = {name: value for name, value in script.items() if value is not None}
        layer = Layer("ComputeResource.run", given, _nowhere)
        return resolve_script(profile=profile, defaults=None, script=layer, folder=folder)


def _nowhere(path: KeyPath) -> Position | None:
    """Arguments of a call have no line in a YAML file."""
    return None


def _tree(
    value: LauncherSpec | Resources | EnvironmentSpec | Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Return what was said, without a model's defaults: those must not win over the profile."""
    if value is None:
        return None
    return dict(value) if isinstance(value, Mapping) else value.explicit()


def _calling_folder() -> Path:
    """Return the folder of the file whose code called ``run``."""
    frame = inspect.currentframe()
    caller = frame.f_back.f_back if frame and frame.f_back else None
    file = Path(caller.f_code.co_filename) if caller else None
    return file.resolve().parent if file and file.is_file() else Path.cwd()
