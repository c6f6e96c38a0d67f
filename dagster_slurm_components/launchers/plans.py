"""The planners of the launchers: a spec in, one static shell file, its arguments and the files it needs out.

A package adds a launcher by one entry point in the group ``dagster_slurm_components.launchers``: its name is the
launcher's ``type``, its object a subclass of ``LauncherSpec`` that has a method ``plan(payload, context)``.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.launchers.base import (
    INTERPRETERS,
    NOTEBOOK_PROGRAM,
    PYTHON,
    LaunchContext,
    LaunchPlan,
)
from dagster_slurm_components.spec.launchers import (
    BashLauncher,
    LauncherSpec,
    RayLauncher,
    SrunLauncher,
    TorchrunLauncher,
)
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import memory_megabytes


def plan(launcher: LauncherSpec, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Return how a payload (see ``payload_argv``) starts inside the job.

    Raises:
        DagsterSlurmError: The launcher can't be planned for.
    """
    is_notebook = payload[:2] == INTERPRETERS[".ipynb"]
    if payload[0] == PYTHON:
        payload = (context.python, *payload[1:])
    # torchrun's agent runs inside and starts the payload there, as does srun where it is what makes the container.
    if not isinstance(launcher, TorchrunLauncher) and not (
        isinstance(launcher, SrunLauncher) and context.by_step
    ):
        payload = (*context.wrapper, *payload)
    own = getattr(launcher, "plan", None)
    made: LaunchPlan = own(payload, context) if own else _shipped(launcher, payload, context)
    if "--" in made.options:
        raise DagsterSlurmError(f"an option of the launcher {launcher.type} is exactly `--`")
    return replace(made, files={**made.files, **_programs(NOTEBOOK_PROGRAM)}) if is_notebook else made


@singledispatch
def _shipped(launcher: LauncherSpec, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    raise DagsterSlurmError(
        f"the launcher {launcher.type} has no method `plan`",
        where=f"{type(launcher).__module__}.{type(launcher).__qualname__}",
        hint="See docs/how-to/add-a-launcher.md.",
    )


@_shipped.register
def _bash(launcher: BashLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    return LaunchPlan(script=shipped("launchers/shell/launch_bash.sh"), payload=payload)


@_shipped.register
def _srun(launcher: SrunLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Start one process for each task, as MPI programs are: by srun, or as plain ones where there is no Slurm."""
    common = _options(launcher, "output", "grace")
    if context.scheduler == "process":
        return _by_program("launch_local_ranks.py", [*common, f"--tasks={launcher.local_tasks}"], payload)
    options = [f"--srun={option}" for option in _srun_options(launcher, context.resources)]
    inside = context.inside() if context.by_step else []
    return _by_program("launch_srun.py", [*common, *options, *inside], payload)


def _srun_options(launcher: SrunLauncher, resources: Resources) -> list[str]:
    """Return srun's own options.

    What shapes the step is said again, for srun takes what is not said from the job's variables: SLURM_NTASKS,
    and SLURM_EXPORT_ENV. Since Slurm 22.05 it does not take over --cpus-per-task at all.
    """
    options = ["--kill-on-bad-exit=1", "--export=ALL"]
    tasks, nodes = resources.ntasks, str(resources.nodes or 1)
    if tasks is None and resources.ntasks_per_node is not None and nodes.isdigit():
        tasks = int(nodes) * resources.ntasks_per_node
    if tasks is not None:
        options.append(f"--ntasks={tasks}")
    options += _options(resources, "ntasks_per_node", "cpus_per_task")
    options += _options(launcher, "mpi", "cpu_bind", "mem_bind", "distribution", "hint")
    for name, value in launcher.options.items():
        if value is not False:
            options.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}"))
    return options


@_shipped.register
def _torchrun(launcher: TorchrunLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Start PyTorch's own elastic agent on each node; without Slurm, one on this machine."""
    options = _options(launcher, "nproc_per_node", "max_restarts", "rendezvous_timeout", "output", "grace")
    options += _options(launcher, "nnodes", "host_suffix")
    return _by_program("launch_torchrun.py", [*options, *context.inside()], payload, "nodes.py", "ports.py")


@_shipped.register
def _ray(launcher: RayLauncher, payload: tuple[str, ...], context: LaunchContext) -> LaunchPlan:
    """Start the payload once, on the head of a Ray cluster of the job's own, made of what the job was given.

    With ``address`` nothing is started: the payload finds that cluster in RAY_ADDRESS.
    """
    # Ray 2.60 looks for `uv run` among its parents, and then has uv make an environment for the tasks; where it finds
    # one, in the local profile, it is the one that Dagster was started by.
    env = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    if launcher.address is not None:
        env["RAY_ADDRESS"] = launcher.address
        return LaunchPlan(script=shipped("launchers/shell/launch_bash.sh"), payload=payload, env=env)
    if context.scheduler == "process":
        # What keeps Ray to the loopback address, which it else replaces by one that other machines reach.
        env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    options = _options(launcher, "start_timeout", "grace", "host_suffix")
    if not launcher.dashboard:
        options.append("--no-dashboard")
    if launcher.object_store_memory is not None:
        options.append(f"--object-store-memory={int(memory_megabytes(launcher.object_store_memory) * 2**20)}")
    if context.scheduler == "process" and context.resources.cpus_per_task is not None:
        options.append(f"--cpus={context.resources.cpus_per_task}")
    options += [f"--start-arg={argument}" for argument in launcher.ray_start_args]
    options += context.inside()
    modules = ("ray_node.py", "ray_wait.py", "nodes.py", "ports.py")
    return replace(_by_program("launch_ray.py", options, payload, *modules), env=env)


def _options(spec: LauncherSpec | Resources, *names: str) -> list[str]:
    """Return options as programs write them, of those attributes of a spec that are set."""
    pairs = [(name.replace("_", "-"), getattr(spec, name)) for name in names]
    return [f"--{name}={value}" for name, value in pairs if value not in (None, "")]


def _by_program(program: str, options: Sequence[str], payload: tuple[str, ...], *modules: str) -> LaunchPlan:
    """Return the plan of a launcher with several processes: a program of ``job/``, with those it needs beside it."""
    files = (program, *modules, "command_line.py", "processes.py", "records.py", "rank.py", "sampling.py")
    return LaunchPlan(
        script=shipped("launchers/shell/launch_python.sh"),
        payload=payload,
        options=(program, *options),
        # One agent, or one Ray, on each node; it starts what the node has room for.
        sbatch={"ntasks-per-node": "1"} if modules else {},
        files=_programs(*files),
    )


def _programs(*names: str) -> dict[str, str]:
    return {f"launch/{name}": shipped(f"launchers/job/{name}") for name in names}
