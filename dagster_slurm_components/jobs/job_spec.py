"""From a resolved script to a job: everything that will be sent, and nothing sent yet."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from dagster_slurm_components.environments.base import Activation
from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.model import JobIdentity, JobSpec
from dagster_slurm_components.launchers.base import PYTHON, LaunchContext, payload_argv
from dagster_slurm_components.launchers.plans import plan
from dagster_slurm_components.spec.launchers import BashLauncher
from dagster_slurm_components.spec.outputs import wanted
from dagster_slurm_components.spec.problems import SpecError
from dagster_slurm_components.spec.resolve import ResolvedScript
from dagster_slurm_components.spec.rules import staging_problems
from dagster_slurm_components.spec.script import Script


def job_spec(
    resolved: ResolvedScript,
    identity: JobIdentity,
    *,
    activation: Activation,
    env: Mapping[str, str] | None = None,
    changed: Mapping[str, str] | None = None,
    files: Mapping[PurePosixPath, Path] | None = None,
) -> JobSpec:
    """Return the job that a script stands for in its profile. Reads the payload's files, and nothing else.

    Args:
        resolved: The script in one profile.
        identity: Which run, step, partition and attempt it is for.
        activation: How its environment is activated.
        env: Variables that this project sets, beside the user's.
        changed: Slurm options that are different in this attempt.
        files: The payload's files, where they have been looked for already.

    Raises:
        SpecError: A file is missing, or `stage` does not fit the rest.
        DagsterSlurmError: What is asked for does not fit together.
    """
    script, profile = resolved.script, resolved.profile
    payload, launcher, scheduler = resolved.payload_place(), script.launcher, profile.profile.scheduler
    if wrong := [*staging_problems(script, scheduler, resolved.merged.position)]:
        raise SpecError(wrong)
    interpreter = launcher.interpreter if isinstance(launcher, BashLauncher) else None
    program = None if payload is None else str(payload)
    by_itself = None if interpreter else program
    argv = payload_argv(program, script.command, script.args, interpreter)
    if activation.by_step and scheduler == "process":
        raise DagsterSlurmError(
            "the environment's container is made by a plugin of srun, and this profile's scheduler is `process`",
            hint="Give the script another `environment` in this profile: `profiles: {local: {environment: ...}}`.",
        )
    inside = (activation.wrapper, activation.python or PYTHON, activation.by_step)
    launch = plan(launcher, argv, LaunchContext(script.resources, scheduler, *inside))
    asked = {name.replace("_", "-"): value for name, value in launch.sbatch.items()}
    own = {"DAGSTER_SLURM_PROFILE": profile.name, **(env or {})}
    if activation.wrapper:
        own["DAGSTER_SLURM_EXPORTED"] = " ".join(script.export)
    if script.umask is not None:
        own["DAGSTER_SLURM_UMASK"] = script.umask
    return JobSpec(
        identity=identity,
        launch=launch,
        activation=activation,
        sbatch=tuple({**asked, **_options(script), **(changed or {})}.items()),
        env={**activation.env, **launch.env, **script.env, **own},
        export=(*activation.export, *script.export),
        files=resolved.payload_files() if files is None else files,
        requeues=script.requeue_on_timeout if scheduler == "slurm" else 0,
        sampler=profile.profile.sampler,
        stage=script.stage,
        outputs=tuple(wanted(script.outputs, lambda name: resolved.position("outputs", name), by_itself)),
    )


def _options(script: Script) -> dict[str, str]:
    """Return the Slurm options that the user asks for.

    A signal goes to the batch shell, which passes it on to the payload's process group: without the ``B`` Slurm
    signals the steps that srun started, and none else.
    """
    options = dict(script.resources.sbatch_options())
    signal = options.get("signal")
    if signal is not None:
        letters, _, rest = signal.rpartition(":")
        options["signal"] = f"{letters if 'B' in letters else letters + 'B'}:{rest}"
    if not script.requeue_on_timeout:
        return options
    if signal is None:
        raise DagsterSlurmError(
            "`requeue_on_timeout` is set, but no `signal` asks the payload for its checkpoint",
            hint="Write one under `resources`, such as `signal: USR1@120`.",
        )
    if "no-requeue" in options:
        raise DagsterSlurmError("`requeue_on_timeout` and `requeue: false` exclude each other")
    return {**options, "requeue": ""}
