"""How the payload starts inside the job."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator

from dagster_slurm_components.spec import asked
from dagster_slurm_components.spec.base import Count, Flag, Format, Positive, Text, Word, one_mistake
from dagster_slurm_components.spec.model import Model, mistake, option, required
from dagster_slurm_components.spec.place import KeyPath
from dagster_slurm_components.spec.registry import Registry
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.sbatch import SUFFIXES
from dagster_slurm_components.spec.slurm_values import Hint, Memory

_OWNED_SRUN_OPTIONS = {
    "output": "write `output: first` or `output: all`",
    "error": "write `output: first` or `output: all`",
    "input": "the payload has no input",
    "export": "the payload's variables are written in `env`",
    "chdir": "the payload starts in its folder inside the run directory",
    "job_name": "dagster-slurm-components finds its jobs again by it",
    "multi_prog": "all tasks run the same payload",
    "pty": "the payload has no terminal",
    "kill_on_bad_exit": "a rank that fails always ends the job",
    **dict.fromkeys(("ntasks", "ntasks_per_node", "cpus_per_task", "nodes"), "write it in `resources`"),
    **dict.fromkeys(("mpi", "cpu_bind", "mem_bind", "distribution", "hint"), "write it beside `options`"),
}


def _srun_option(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        hint = "write its long name with underscores: `gpu_bind`"
        raise mistake(f"{name!r} can't be an option of srun", hint)
    if name in _OWNED_SRUN_OPTIONS:
        raise mistake(f"`{name}` can't be set here: {_OWNED_SRUN_OPTIONS[name]}")
    return name


def _node_range(text: str) -> str:
    match = re.fullmatch(r"([1-9]\d{0,5}):([1-9]\d{0,5})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise mistake(f"{text!r} is not a range of nodes", 'write one like "1:4", in quotes')
    return text


LANGUAGES = {
    ".py": "python",
    **dict.fromkeys((".sh", *SUFFIXES), "bash"),
    ".R": "r",
    ".r": "r",
    ".jl": "julia",
    ".ipynb": "jupyter",
}
"""What a payload file is written in, by extension; any other is a program of its own."""
SrunOption = Annotated[str, AfterValidator(_srun_option)]
NodeRange = Annotated[Word, AfterValidator(_node_range)]
RanksPerNode = Annotated[
    Positive | Literal["gpu", "cpu", "auto"], one_mistake("a whole number from 1, `gpu`, `cpu` or `auto`")
]
HostSuffix = Annotated[Text, Format(r"[A-Za-z0-9.\-]*", "the end of a host name", "-ib", minimum=0)]


class LauncherSpec(Model):
    """The base of all launchers; ``type`` chooses one."""

    type: str = required("Which launcher.", "bash")

    def disagreements(self, resources: Resources) -> Iterator[tuple[KeyPath, str]]:
        """Yield where the resources don't fit this launcher: the path in the script, and what is wrong there.

        ``dg-slurm check`` and Dagster's loading report them before anything is queued.
        """
        yield from ()


class BashLauncher(LauncherSpec):
    """Starts the payload once, on the job's first node, as a plain process."""

    type: Literal["bash"] = option("Which launcher.", "bash", default="bash")
    interpreter: list[Text] | None = option(
        "Command that runs the payload file; else `.py` runs in the environment's Python, `.sh` in bash,"
        " `.R` in Rscript, `.jl` in julia, `.ipynb` cell by cell, and anything else by itself.",
        ["Rscript", "--vanilla"],
    )


class DistributedLauncher(LauncherSpec):
    """What launchers of several processes have in common."""

    grace: Positive = option(
        "Seconds that processes have between SIGTERM and SIGKILL, when another one has failed or the job is"
        " cancelled. Slurm's own KillWait, often 30 seconds, ends the job at the latest.",
        60,
        default=15,
    )


class RankLauncher(DistributedLauncher):
    """What launchers that start ranks have in common."""

    output: Literal["first", "all"] = option(
        "Whose output is the job's own log: that of the first rank, or of all. Every rank that is not shown"
        " has its output in the run directory: `ranks/<rank>.out` and `ranks/<rank>.err`.",
        "all",
        default="first",
    )


class SrunLauncher(RankLauncher):
    """Starts the payload once for each task, by `srun`, as MPI programs are started."""

    type: Literal["srun"] = option("Which launcher.", "srun", default="srun")
    mpi: Word | None = option("Kind of MPI; `srun --mpi=list` shows what a site has.", "pmix")
    cpu_bind: Word | None = option("How tasks are bound to CPUs.", "cores")
    mem_bind: Word | None = option("How tasks are bound to memory.", "local")
    distribution: Word | None = option("How tasks are spread over nodes and sockets.", "block:cyclic")
    hint: Hint | None = option("How the payload uses cores.", "nomultithread")
    options: dict[SrunOption, Annotated[Flag | Word, one_mistake("text, a number, true or false")]] = option(
        "Any other option of srun, by its long name with underscores; `true` for one without a value.",
        {"gpu_bind": "closest", "exact": True},
        default={},
    )
    local_tasks: Positive = option(
        "Processes to start where there is no Slurm. An MPI program that is started alone is a world of one"
        " rank; programs that read SLURM_PROCID and SLURM_NTASKS can be started as several.",
        2,
        default=1,
    )


class TorchrunLauncher(RankLauncher):
    """Starts the payload by PyTorch's `torchrun`: one agent on each node, which starts the ranks."""

    type: Literal["torchrun"] = option("Which launcher.", "torchrun", default="torchrun")
    nproc_per_node: RanksPerNode = option(
        "Ranks on each node: a number, or one for each GPU or CPU.", 4, "gpu", default=1
    )
    nnodes: NodeRange | None = option(
        "For elastic training: the fewest and the most nodes. Left out, all nodes of the job take part, and"
        " the job fails with the first that is lost.",
        "1:4",
    )
    max_restarts: Count = option("How often all ranks are started again after one has failed.", 3, default=0)
    rendezvous_timeout: Positive = option("Seconds until all nodes must have met.", 600, default=300)
    host_suffix: HostSuffix = option(
        "Appended to a node's name to get that of its fast network.", "i", "-ib0", default=""
    )

    def disagreements(self, resources: Resources) -> Iterator[tuple[KeyPath, str]]:
        """Yield where the resources don't fit: tasks, GPUs, the range of nodes."""
        yield from _one_task_per_node("torchrun starts its ranks itself; write `nproc_per_node`", resources)
        gpus = asked.gpus_per_node(resources, tasks_per_node=1)
        if isinstance(self.nproc_per_node, int) and gpus is not None and self.nproc_per_node > gpus:
            share = f"{self.nproc_per_node} ranks share {gpus} GPUs on each node"
            yield ("launcher", "nproc_per_node"), f"{share}; ask for as many GPUs as ranks"
        nodes = asked.nodes(resources)
        if self.nnodes is not None and nodes is not None:
            least, most = (int(number) for number in self.nnodes.split(":"))
            if nodes[0] < least or nodes[1] > most:
                message = f"{resources.nodes} nodes are asked for, which is not in {self.nnodes}"
                yield ("launcher", "nnodes"), message


class RayLauncher(DistributedLauncher):
    """Starts a Ray cluster of the job's own, and the payload once, on its head."""

    type: Literal["ray"] = option("Which launcher.", "ray", default="ray")
    object_store_memory: Memory | None = option(
        "Memory of each node's object store; left out, 30 % of the job's memory there.", "4G"
    )
    dashboard: Flag = option(
        "Whether to start Ray's dashboard, on the head's loopback address only.", False, default=True
    )
    ray_start_args: list[Word] = option(
        "More arguments for each node's `ray start`.", ["--labels=tier=gold"], default=[]
    )
    start_timeout: Positive = option(
        "Seconds until all nodes must have joined the cluster.", 600, default=180
    )
    address: Word | None = option(
        "Use this Ray cluster, and start none. The payload finds it in RAY_ADDRESS.", "10.1.2.3:6379"
    )
    host_suffix: HostSuffix = option(
        "Appended to a node's name to get that of its fast network.", "i", "-ib0", default=""
    )

    def disagreements(self, resources: Resources) -> Iterator[tuple[KeyPath, str]]:
        """Yield where the resources don't fit: Ray wants one process on each node, and divides it itself."""
        if self.address is None:
            why = "Ray has one process on each node; write `cpus_per_task`"
            yield from _one_task_per_node(why, resources)


def _one_task_per_node(why: str, resources: Resources) -> Iterator[tuple[KeyPath, str]]:
    """Yield what one process on each node can't use: other tasks, and GPUs that each node has another number of."""
    if (resources.ntasks_per_node or 1) > 1:
        yield ("resources", "ntasks_per_node"), why
    nodes = asked.nodes(resources) or (1, 1)
    if resources.ntasks is not None and not nodes[0] <= resources.ntasks <= nodes[1]:
        yield ("resources", "ntasks"), why
    if resources.ntasks_per_gpu is not None:
        yield ("resources", "ntasks_per_gpu"), why
    # Slurm 22.05 gave 3 + 1 for 4 on two nodes, and refused Ray's step.
    if resources.gpus is not None and nodes[1] > 1:
        spread = "Slurm spreads `gpus` over the nodes as it likes, 3 and 1 for 4; write `gpus_per_node`"
        yield ("resources", "gpus"), spread
    # sbatch counts tasks from the two, and refuses to have another number of them.
    of_task = resources.gpus_per_task
    of_node = asked.gpus_per_node(resources.model_copy(update={"gpus_per_task": None}))
    if of_task is not None and of_node not in (None, asked.total(of_task)):
        message = f"each node's one task has all of its {of_node} GPUs; leave `gpus_per_task` out"
        yield ("resources", "gpus_per_task"), message


def asks_for_gpus(resources: Resources) -> bool:
    """Whether resources name GPUs in any of Slurm's ways."""
    asking = (resources.gpus, resources.gpus_per_node, resources.gpus_per_task, resources.gpus_per_socket)
    return any(asking) or "gpu" in f"{resources.gres}{resources.tres_per_task}"


def one_gpu_by(launcher: LauncherSpec, resources: Resources) -> str | None:
    """Return the option by which each of a node's several tasks sees one GPU alone, None if none does.

    >>> one_gpu_by(SrunLauncher(), Resources(gpus_per_task=1, ntasks_per_node=4))
    'gpus_per_task'
    """
    most = (asked.nodes(resources) or (1, 1))[1]
    tasks = resources.ntasks_per_gpu or resources.ntasks_per_node or (resources.ntasks or 1) / most
    shows_one = {
        "ntasks_per_gpu": r"\d+",
        "gpus_per_task": r"([^:,]+:)*1",
        "gpu_bind": r"(v\w*,)?(single:\d+|per_task:1|map_gpu:.*)",
    }
    if isinstance(launcher, SrunLauncher) and (tasks > 1 or resources.ntasks_per_gpu):
        for name, pattern in shows_one.items():
            if re.fullmatch(pattern, str(launcher.options.get(name) or getattr(resources, name))):
                return name
    return None


LAUNCHERS: Registry[LauncherSpec] = Registry(
    "launcher",
    "dagster_slurm_components.launchers",
    (BashLauncher, SrunLauncher, TorchrunLauncher, RayLauncher),
    default="bash",
)
"""Model by launcher type."""

Launcher = Annotated[LauncherSpec, LAUNCHERS]
"""A field that holds any launcher."""
