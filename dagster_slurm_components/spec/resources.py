"""What Slurm is asked for: sbatch's own long options, with underscores."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dagster_slurm_components.spec.base import WHOLE, Count, Flag, Int, Positive, Word
from dagster_slurm_components.spec.model import Model, option
from dagster_slurm_components.spec.slurm_values import (
    Gpus,
    Gres,
    Hint,
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

FLAGS = frozenset(
    (
        *("contiguous", "exclusive", "external", "get-user-env", "hold", "ignore-pbs", "nice", "no-kill"),
        *("no-requeue", "oom-kill-step", "overcommit", "oversubscribe", "parsable", "propagate", "quiet"),
        *("reboot", "requeue", "resv-ports", "spread-job", "stepmgr", "test-only", "use-min-nodes"),
        *("verbose", "wait"),
    )
)
"""Options with an optional value or none, in any of 20.11 to 25.11. sbatch joins the lines of a header into one
argument list: any other option without a value would swallow the next line as its value."""


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

    partition: Name | None = option("Partition to run in, or several separated by commas.", "gpu")
    account: Name | None = option("Account that is charged.", "proj1")
    qos: Name | None = option("Quality of service.", "normal")
    reservation: Name | None = option("Reservation to run in.", "course_monday")
    nodes: Nodes | None = option("Number of nodes, or a range.", 2, "2-4")
    ntasks: Positive | None = option("Number of tasks, over all nodes.", 8)
    ntasks_per_node: Positive | None = option("Number of tasks on each node.", 4)
    ntasks_per_socket: Positive | None = option("Most tasks on each socket.", 2)
    ntasks_per_core: Positive | None = option("Most tasks on each core.", 1)
    ntasks_per_gpu: Positive | None = option("Number of tasks for each GPU.", 1)
    cpus_per_task: Positive | None = option("CPUs for each task.", 4)
    cpus_per_gpu: Positive | None = option("CPUs for each GPU.", 8)
    mincpus: Positive | None = option("Fewest CPUs on each node.", 16)
    gpus: Gpus | None = option(
        "GPUs for the whole job, with a type before a colon if it matters.", 4, "a100:4"
    )
    gpus_per_node: Gpus | None = option("GPUs on each node.", 4, "a100:4")
    gpus_per_task: Gpus | None = option("GPUs for each task.", 1)
    gpus_per_socket: Gpus | None = option("GPUs on each socket.", 2)
    gres: Gres | None = option("Generic resources on each node.", "gpu:a100:2")
    gres_flags: Word | None = option("Flags of generic resources.", "enforce-binding")
    tres_per_task: Word | None = option("Trackable resources for each task.", "cpu=4,gres/gpu:1")
    mem: Memory | None = option("Memory on each node; a number alone is mebibytes, 0 is all of it.", "8G")
    mem_per_cpu: Memory | None = option("Memory for each CPU; a number alone is mebibytes.", "2G")
    mem_per_gpu: Memory | None = option("Memory for each GPU; a number alone is mebibytes.", "32G")
    mem_bind: Word | None = option("How tasks are bound to memory.", "local")
    tmp: Memory | None = option(
        "Space of the node's temporary file system; a number alone is mebibytes.", "100G"
    )
    time: Time | None = option("Time limit, in quotes.", "00:30:00", "1-12:00:00")
    time_min: Time | None = option("Least time limit, in quotes; Slurm may lower `time` to it.", "00:10:00")
    begin: Moment | None = option("When the job may start at the earliest, in quotes.", "now+1hour")
    deadline: Moment | None = option("When the job must have ended, in quotes.", "2030-01-20T12:00:00")
    constraint: Word | None = option("Features that the nodes must have.", "a100&ib")
    prefer: Word | None = option("Features that the nodes should have.", "a100")
    cluster_constraint: Word | None = option("Features that the federated cluster must have.", "gpu")
    batch: Word | None = option("Features that the first node must have.", "highmem")
    exclusive: Literal[True, False, "user", "mcs", "topo"] | None = option(
        "Take whole nodes: true, or share them only within `user`, `mcs` or `topo`.", True, "user"
    )
    oversubscribe: Flag | None = option("Let others use the same CPUs.", True)
    overcommit: Flag | None = option("Run more tasks than CPUs.", True)
    contiguous: Flag | None = option("Take neighbouring nodes only.", True)
    spread_job: Flag | None = option("Spread the job over as many nodes as possible.", True)
    use_min_nodes: Flag | None = option("Take the fewest nodes of a range.", True)
    nodelist: Name | None = option("Nodes that the job must get, among others.", "node[01-04]")
    exclude: Name | None = option("Nodes that the job must not get.", "node13")
    licenses: Name | None = option("Licences.", "matlab:1")
    nice: Int | None = option("How much to lower the priority; may be negative for operators.", 100)
    priority: Word | None = option("The priority itself, for operators.", "TOP")
    signal: Signal | None = option(
        "Signal before the time limit, and how many seconds before it.", "B:USR1@120"
    )
    requeue: Flag | None = option("Whether Slurm may put the job back into the queue.", False)
    hint: Hint | None = option("How the payload uses cores.", "nomultithread")
    distribution: Word | None = option("How tasks are spread over nodes and sockets.", "block:cyclic")
    sockets_per_node: Positive | None = option("Fewest sockets of each node.", 2)
    cores_per_socket: Positive | None = option("Fewest cores of each socket.", 16)
    threads_per_core: Positive | None = option("Threads of each core.", 1)
    extra_node_info: Word | None = option("Sockets, cores and threads in one.", "2:16:1")
    core_spec: Count | None = option("Cores of each node kept free for the system.", 2)
    thread_spec: Count | None = option("Threads of each node kept free for the system.", 2)
    switches: Switches | None = option("Most switches, and the longest time to wait for them.", "1@01:00:00")
    segment: Positive | None = option("Nodes of each segment of a block topology.", 16)
    network: Word | None = option("Options of the interconnect.", "single_node_vni")
    bb: Word | None = option("Burst buffer.", "capacity=100G")
    acctg_freq: Word | None = option("Seconds between accounting samples.", "task=15")
    cpu_freq: Word | None = option("CPU frequency in kHz, or a word.", "high")
    gpu_bind: Word | None = option("How tasks are bound to GPUs.", "closest")
    gpu_freq: Word | None = option("GPU frequency in MHz, or a word.", "medium")
    wckey: Word | None = option("Workload characterisation key.", "genomics")
    mcs_label: Word | None = option("Multi-category security label.", "group1")
    mail_type: Word | None = option("Events to write a mail about.", "FAIL")
    mail_user: Word | None = option("Who gets the mail.", "user@example.org")
    profile: Word | None = option("What Slurm's own profiling collects.", "task")
    propagate: Word | None = option("Limits of the login node that the job takes over.", "NONE")
    delay_boot: Word | None = option("Minutes to wait before a node is booted with other features.", "10")
    reboot: Flag | None = option("Reboot the nodes first.", True)
    no_kill: Flag | None = option("Keep the job when one of its nodes fails.", True)
    wait_all_nodes: Annotated[int, Field(ge=0, le=1), WHOLE] | None = option(
        "1: start when all nodes are ready.", 1
    )
    power: Word | None = option("Power management.", "level")
    stepmgr: Flag | None = option("Manage job steps on the nodes instead of the controller.", True)

    def sbatch_options(self) -> tuple[tuple[str, str], ...]:
        """Return the options as sbatch spells them, in a fixed order; a flag's value is empty."""
        options = []
        for name in type(self).model_fields:
            option, value = name.replace("_", "-"), getattr(self, name)
            if option == "requeue" and value is False:
                option, value = "no-requeue", True
            if value is not None and value is not False:
                options.append((option, "" if value is True else str(value)))
        return tuple(options)
