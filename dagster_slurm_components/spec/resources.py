"""What Slurm is asked for: sbatch's own long options, with underscores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dagster_slurm_components.spec.base import WHOLE, Count, Flag, Int, Model, Positive, Word
from dagster_slurm_components.spec.slurm_values import (
    Gpus,
    Gres,
    Memory,
    Moment,
    Name,
    Nodes,
    Signal,
    Switches,
    Time,
)

_RUN_DIRECTORY = "dagster-slurm-components keeps it in the run directory"
_LEDGER = "dagster-slurm-components finds its jobs again by it"
OWNED: Mapping[str, str] = {
    "array": "each partition of an asset is a job of its own; use Dagster's partitions or `matrix`",
    "chdir": "the payload starts in its folder inside the run directory",
    "clusters": "a job's number would not be unique; point a profile's host at that cluster's login node",
    "comment": _LEDGER,
    "container": "write it as the script's `environment`",
    "dependency": "Dagster runs a script when its assets' `deps` are there",
    "error": _RUN_DIRECTORY,
    "export": "the payload's variables are written in `env`",
    "export_file": "the payload's variables are written in `env`",
    "get_user_env": "the payload's variables are written in `env`",
    "gid": "jobs run as the profile's user",
    "hold": "Dagster decides when a job starts",
    "input": _RUN_DIRECTORY,
    "job_name": _LEDGER,
    "kill_on_invalid_dep": "Dagster runs a script when its assets' `deps` are there",
    "no_requeue": "write `requeue: false`",
    "open_mode": _RUN_DIRECTORY,
    "output": _RUN_DIRECTORY,
    "parsable": "dagster-slurm-components reads sbatch's answer",
    "quiet": "dagster-slurm-components reads sbatch's answer",
    "test_only": "`dg-slurm render --test-only` asks that",
    "uid": "jobs run as the profile's user",
    "wait": "Dagster waits for the job",
    "wrap": "write the command as the script's `command`",
}


def _option(description: str, *examples: Any) -> Any:
    return Field(default=None, description=description, examples=list(examples))


class Resources(Model):
    """What Slurm is asked for; the process scheduler ignores it.

    Each field is the sbatch option of that name. What no layer writes is not asked for, so that the cluster's
    own defaults hold.

    Example:
        >>> Resources(nodes=2, mem="8G", requeue=False).sbatch_options()
        (('nodes', '2'), ('mem', '8G'), ('no-requeue', ''))
    """

    one_of: ClassVar[tuple[tuple[str, ...], ...]] = (("mem", "mem_per_cpu", "mem_per_gpu"),)
    refused: ClassVar[Mapping[str, str]] = OWNED

    partition: Name | None = _option("Partition to run in, or several separated by commas.", "gpu")
    account: Name | None = _option("Account that is charged.", "proj1")
    qos: Name | None = _option("Quality of service.", "normal")
    reservation: Name | None = _option("Reservation to run in.", "course_monday")
    nodes: Nodes | None = _option("Number of nodes, or a range.", 2, "2-4")
    ntasks: Positive | None = _option("Number of tasks, over all nodes.", 8)
    ntasks_per_node: Positive | None = _option("Number of tasks on each node.", 4)
    ntasks_per_socket: Positive | None = _option("Most tasks on each socket.", 2)
    ntasks_per_core: Positive | None = _option("Most tasks on each core.", 1)
    ntasks_per_gpu: Positive | None = _option("Number of tasks for each GPU.", 1)
    cpus_per_task: Positive | None = _option("CPUs for each task.", 4)
    cpus_per_gpu: Positive | None = _option("CPUs for each GPU.", 8)
    mincpus: Positive | None = _option("Fewest CPUs on each node.", 16)
    gpus: Gpus | None = _option(
        "GPUs for the whole job, with a type before a colon if it matters.", 4, "a100:4"
    )
    gpus_per_node: Gpus | None = _option("GPUs on each node.", 4, "a100:4")
    gpus_per_task: Gpus | None = _option("GPUs for each task.", 1)
    gpus_per_socket: Gpus | None = _option("GPUs on each socket.", 2)
    gres: Gres | None = _option("Generic resources on each node.", "gpu:a100:2")
    gres_flags: Word | None = _option("Flags of generic resources.", "enforce-binding")
    tres_per_task: Word | None = _option("Trackable resources for each task.", "cpu=4,gres/gpu:1")
    mem: Memory | None = _option("Memory on each node; a number alone is mebibytes, 0 is all of it.", "8G")
    mem_per_cpu: Memory | None = _option("Memory for each CPU; a number alone is mebibytes.", "2G")
    mem_per_gpu: Memory | None = _option("Memory for each GPU; a number alone is mebibytes.", "32G")
    mem_bind: Word | None = _option("How tasks are bound to memory.", "local")
    tmp: Memory | None = _option(
        "Space of the node's temporary file system; a number alone is mebibytes.", "100G"
    )
    time: Time | None = _option("Time limit, in quotes.", "00:30:00", "1-12:00:00")
    time_min: Time | None = _option("Least time limit, in quotes; Slurm may lower `time` to it.", "00:10:00")
    begin: Moment | None = _option("When the job may start at the earliest, in quotes.", "now+1hour")
    deadline: Moment | None = _option("When the job must have ended, in quotes.", "2030-01-20T12:00:00")
    constraint: Word | None = _option("Features that the nodes must have.", "a100&ib")
    prefer: Word | None = _option("Features that the nodes should have.", "a100")
    cluster_constraint: Word | None = _option("Features that the federated cluster must have.", "gpu")
    batch: Word | None = _option("Features that the first node must have.", "highmem")
    exclusive: Literal[True, False, "user", "mcs", "topo"] | None = _option(
        "Take whole nodes: true, or share them only within `user`, `mcs` or `topo`.", True, "user"
    )
    oversubscribe: Flag | None = _option("Let others use the same CPUs.", True)
    overcommit: Flag | None = _option("Run more tasks than CPUs.", True)
    contiguous: Flag | None = _option("Take neighbouring nodes only.", True)
    spread_job: Flag | None = _option("Spread the job over as many nodes as possible.", True)
    use_min_nodes: Flag | None = _option("Take the fewest nodes of a range.", True)
    nodelist: Name | None = _option("Nodes that the job must get, among others.", "node[01-04]")
    exclude: Name | None = _option("Nodes that the job must not get.", "node13")
    licenses: Name | None = _option("Licences.", "matlab:1")
    nice: Int | None = _option("How much to lower the priority; may be negative for operators.", 100)
    priority: Word | None = _option("The priority itself, for operators.", "TOP")
    signal: Signal | None = _option(
        "Signal before the time limit, and how many seconds before it.", "B:USR1@120"
    )
    requeue: Flag | None = _option("Whether Slurm may put the job back into the queue.", False)
    hint: Literal["compute_bound", "memory_bound", "multithread", "nomultithread"] | None = _option(
        "How the payload uses cores.", "nomultithread"
    )
    distribution: Word | None = _option("How tasks are spread over nodes and sockets.", "block:cyclic")
    sockets_per_node: Positive | None = _option("Fewest sockets of each node.", 2)
    cores_per_socket: Positive | None = _option("Fewest cores of each socket.", 16)
    threads_per_core: Positive | None = _option("Threads of each core.", 1)
    extra_node_info: Word | None = _option("Sockets, cores and threads in one.", "2:16:1")
    core_spec: Count | None = _option("Cores of each node kept free for the system.", 2)
    thread_spec: Count | None = _option("Threads of each node kept free for the system.", 2)
    switches: Switches | None = _option("Most switches, and the longest time to wait for them.", "1@01:00:00")
    segment: Positive | None = _option("Nodes of each segment of a block topology.", 16)
    network: Word | None = _option("Options of the interconnect.", "single_node_vni")
    bb: Word | None = _option("Burst buffer.", "capacity=100G")
    acctg_freq: Word | None = _option("Seconds between accounting samples.", "task=15")
    cpu_freq: Word | None = _option("CPU frequency in kHz, or a word.", "high")
    gpu_bind: Word | None = _option("How tasks are bound to GPUs.", "closest")
    gpu_freq: Word | None = _option("GPU frequency in MHz, or a word.", "medium")
    wckey: Word | None = _option("Workload characterisation key.", "genomics")
    mcs_label: Word | None = _option("Multi-category security label.", "group1")
    mail_type: Word | None = _option("Events to write a mail about.", "FAIL")
    mail_user: Word | None = _option("Who gets the mail.", "user@example.org")
    profile: Word | None = _option("What Slurm's own profiling collects.", "task")
    propagate: Word | None = _option("Limits of the login node that the job takes over.", "NONE")
    delay_boot: Word | None = _option("Minutes to wait before a node is booted with other features.", "10")
    reboot: Flag | None = _option("Reboot the nodes first.", True)
    no_kill: Flag | None = _option("Keep the job when one of its nodes fails.", True)
    wait_all_nodes: Annotated[int, Field(ge=0, le=1), WHOLE] | None = _option(
        "1: start when all nodes are ready.", 1
    )
    power: Word | None = _option("Power management.", "level")
    stepmgr: Flag | None = _option("Manage job steps on the nodes instead of the controller.", True)

    def sbatch_options(self) -> tuple[tuple[str, str], ...]:
        """Return the options as sbatch spells them, in a fixed order; a flag's value is empty."""
        options = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            option = name.replace("_", "-")
            if value is None or (value is False and name != "requeue"):
                continue
            if value is False:
                options.append(("no-requeue", ""))
            else:
                options.append((option, "" if value is True else str(value)))
        return tuple(options)
