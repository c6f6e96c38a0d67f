"""The Python face: ``ComputeResource``, whose ``run`` does what a script in YAML does."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import dagster as dg
from typing_extensions import Unpack

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.pipes.arrays.map import map_script
from dagster_slurm_components.pipes.client import ComputeJob, run_script, submit_script
from dagster_slurm_components.pipes.context import AnyContext, override_of
from dagster_slurm_components.pipes.results import CompletedJob
from dagster_slurm_components.spec.environments import EnvironmentSpec
from dagster_slurm_components.spec.launchers import LauncherSpec
from dagster_slurm_components.spec.merge import Layer
from dagster_slurm_components.spec.place import Position
from dagster_slurm_components.spec.profiles import load_profile
from dagster_slurm_components.spec.resolve import ResolvedScript, ScriptEntry, resolve_script
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.run_override import NOTHING_ASKED, RunOverride


class PayloadArguments(TypedDict, total=False):
    """What a call runs, and how.

    Attributes:
        payload_path: The payload; a relative path starts at the folder of the calling code.
        command: A program and its arguments, instead of a payload file.
        args: The payload's arguments.
        launcher: How it starts; by default ``bash``.
        resources: What Slurm is asked for.
        environment: The software it runs in.
        files: Files or globs that travel along, relative to the calling code.
        exclude: What of these stays behind: globs of names, or of the ends of paths.
        extra_env: Environment variables, never shown in scripts or argument lists.
        inputs: What it reads, by name: an asset, a file of this machine or a URL, or a mapping as in YAML.
        outputs: Files and folders that the payload makes, by name: each a path or pattern, or a mapping as in YAML.
        stage: Folder of the node below which the payload works on copies: ``$TMPDIR``.
        relay: Growing files that come to Dagster's machine while the job runs, as in YAML; not for ``map``.
    """

    payload_path: str | Path | None
    command: Sequence[str] | None
    args: Sequence[str]
    launcher: LauncherSpec | Mapping[str, Any] | None
    resources: Resources | Mapping[str, Any] | None
    environment: EnvironmentSpec | Mapping[str, Any] | None
    files: Sequence[str]
    exclude: Sequence[str]
    extra_env: Mapping[str, str] | None
    inputs: Mapping[str, str | Mapping[str, Any]] | None
    outputs: Mapping[str, str | Mapping[str, Any]] | None
    stage: str | None
    relay: Mapping[str, str | Mapping[str, Any]] | None


class ComputeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Runs payloads wherever the profile says: this machine, a workstation, a cluster.

    Attributes:
        profile: The profile's name; by default that of the run's tags, else ``DAGSTER_SLURM_PROFILE``, else ``local``.
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
        context: AnyContext,
        extras: Mapping[str, Any] | None = None,
        **payload: Unpack[PayloadArguments],
    ) -> CompletedJob:
        """Run a payload as one job and wait for its end.

        A step may do this any number of times, also in threads: each call is a job of its own. A step that is tried
        again takes up the jobs of its earlier try, call by call.

        Args:
            context: Dagster's context of the asset, op or check.
            extras: What the payload receives as Pipes extras.
            payload: See ``PayloadArguments``; what is left out comes from the profile, as for a script in YAML.

        Returns:
            The completed invocation: ``yield from completed.get_results()``.

        Raises:
            SpecError: An argument is wrong; the message names it.
            Failure: The payload failed, or the scheduler refused the job.
        """
        resolved = self.resolve(_script(payload), *_caller(), override_of(context))
        return run_script(context, resolved, extras=extras)

    def submit(
        self,
        *,
        context: AnyContext,
        extras: Mapping[str, Any] | None = None,
        **payload: Unpack[PayloadArguments],
    ) -> ComputeJob:
        """Submit a payload as one job, and return at once.

        A job whose ``result`` is never asked for is cancelled after its run has succeeded, by the sensor
        ``slurm_jobs``.

        Args:
            context: As for ``run``.
            extras: As for ``run``.
            payload: As for ``run``.

        Returns:
            The job: ``job.result()`` waits for it, ``job.state`` and ``job.job_id`` tell of it, ``job.cancel()`` ends
            it.

        Raises:
            SpecError: An argument is wrong; the message names it.

        Example:
            .. code-block:: python

                jobs = [compute.submit(context=context, payload_path="fold.py", args=[str(n)]) for n in range(5)]
                scores = [job.result().get_custom_messages() for job in jobs]
        """
        resolved = self.resolve(_script(payload), *_caller(), override_of(context))
        return submit_script(context, resolved, extras=extras)

    def map(
        self,
        *,
        context: AnyContext,
        items: Iterable[Any],
        max_parallel: int | None = None,
        extras: Mapping[str, Any] | None = None,
        **payload: Unpack[PayloadArguments],
    ) -> list[CompletedJob]:
        """Run a payload once for each item, several jobs at once, and wait for all of them; on Slurm as a job array.

        The payload finds its item and the item's number as Pipes extras ``item`` and ``index``, and the item as JSON in
        the variable ``DAGSTER_SLURM_ITEM``.

        Args:
            context: As for ``run``.
            items: What JSON can hold.
            max_parallel: The most jobs that wait or run at once; by default all.
            extras: As for ``run``; ``item`` and ``index`` are added.
            payload: As for ``run``.

        Returns:
            The completed invocations, in the order of the items.

        Raises:
            SpecError: An argument is wrong; the message names it.
            Failure: Some items failed; all others were run to their end, and a retry of the step does not run them
                again. The message names each.
        """
        if payload.get("relay"):
            text, hint = (
                "no `relay` brings the files of many jobs here",
                "Take it out, or use `compute.submit`.",
            )
            raise DagsterSlurmError(text, hint=hint)
        resolved = self.resolve(_script(payload), *_caller(), override_of(context))
        return map_script(context, resolved, list(items), max_parallel=max_parallel, extras=extras)

    def resolve(
        self,
        script: Mapping[str, Any],
        folder: Path,
        call: Position | None = None,
        run: RunOverride = NOTHING_ASKED,
    ) -> ResolvedScript:
        """Return a script, as a mapping, merged with the profile; relative paths start at ``folder``.

        ``call`` is where its values were written, for messages; ``run`` what its run asks for.
        """
        profile = load_profile(self.profile, start=Path(self.project) if self.project else folder, run=run)
        given = {name: value for name, value in script.items() if value is not None}
        given["leave"] = False  # whatever the profile says: who calls from Python waits for what it gets back
        layer = Layer("ComputeResource.run", given, lambda path: call)
        return resolve_script(ScriptEntry(layer, None, folder), profile)


def _script(payload: PayloadArguments) -> dict[str, Any]:
    """Return the arguments of a call as a script in YAML would say them."""
    if "leave" in payload:
        raise DagsterSlurmError(
            "a job that is called from Python can't be left: the call returns its results",
            hint="Write it as a script in YAML, with `leave: true`.",
        )
    path, command = payload.get("payload_path"), payload.get("command")
    return {
        "payload": str(path) if path is not None else None,
        "command": list(command) if command is not None else None,
        "args": [str(arg) for arg in payload.get("args", ())] or None,
        "launcher": _tree(payload.get("launcher")),
        "resources": _tree(payload.get("resources")),
        "environment": _tree(payload.get("environment")),
        "files": list(payload.get("files", ())) or None,
        "exclude": list(payload.get("exclude", ())) or None,
        "env": dict(payload.get("extra_env") or {}) or None,
        "inputs": dict(payload.get("inputs") or {}) or None,
        "outputs": dict(payload.get("outputs") or {}) or None,
        "stage": payload.get("stage"),
        "relay": dict(payload.get("relay") or {}) or None,
    }


def _tree(
    value: LauncherSpec | Resources | EnvironmentSpec | Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Return what was written, without a model's defaults: those must not win over the profile."""
    if value is None:
        return None
    return dict(value) if isinstance(value, Mapping) else value.explicit()


def _caller() -> tuple[Path, Position | None]:
    """Return the folder of the file whose code called ``run``, and the line of the call."""
    frame = inspect.currentframe()
    caller = frame.f_back.f_back if frame and frame.f_back else None
    file = Path(caller.f_code.co_filename) if caller else None
    if caller is None or file is None or not file.is_file():
        return Path.cwd(), None
    return file.resolve().parent, Position(str(file), caller.f_lineno, 1)
