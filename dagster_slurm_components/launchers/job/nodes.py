"""What a job knows of its nodes: their names, their addresses, their share of CPUs and GPUs."""

import ipaddress
import os
import re
import socket
import subprocess
from itertools import takewhile
from typing import Dict, List, Optional

import records


def count() -> int:
    """Return the number of the job's nodes; 1 without Slurm."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES") or 1)


def names() -> List[str]:
    """Return the names of the job's nodes, the first one first."""
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if not listed:
        return [records.own_node()]
    return subprocess.check_output(["scontrol", "show", "hostnames", listed], universal_newlines=True).split()


def cpus_by_node(compressed: str) -> List[int]:
    """Read SLURM_JOB_CPUS_PER_NODE.

    >>> cpus_by_node("4(x2),2")
    [4, 4, 2]
    """
    cpus = []
    for count_text, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", compressed):
        cpus += [int(count_text)] * int(times or 1)
    return cpus


def own_cpus(number: int) -> int:
    """Return how many CPUs the job has on its node of that number; without Slurm, what this process may use."""
    compressed = os.environ.get("SLURM_JOB_CPUS_PER_NODE")
    if compressed:
        return cpus_by_node(compressed)[number]
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> Optional[List[str]]:
    """Return the GPUs that Slurm, or the user, lets this process see; None if nobody said.

    They are numbers, or UUIDs, as those of MIG instances. CUDA takes them up to the first that is none, such as
    Slurm's `NoDevFiles`.
    """
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if name in os.environ:
            listed = (each.strip() for each in os.environ[name].split(","))
            return list(takewhile(re.compile(r"\d+$|(GPU|MIG)-\S+$").match, listed))
    return None


def srun_options() -> List[str]:
    """Return the options of a step with one task on each node, which has all CPUs the job has there.

    All is said again, for a step takes what is not said from the job's own variables (SLURM_NTASKS), and
    since Slurm 22.05 a task gets no more CPUs than its step asks for. Nothing is bound: the ranks do that.
    """
    options = ["--ntasks-per-node=1", "--cpu-bind=none", "--kill-on-bad-exit=1", "--export=ALL"]
    cpus = set(cpus_by_node(os.environ.get("SLURM_JOB_CPUS_PER_NODE", "")))
    return options + ([f"--cpus-per-task={cpus.pop()}"] if len(cpus) == 1 else [])


def step_environment() -> Dict[str, str]:
    """Return the environment of such a step, without `gpu_bind`: by that its one task sees one GPU (Slurm 26.05)."""
    bind = ("SLURM_GPU_BIND", "SLURM_TRES_BIND")
    return {name: value for name, value in os.environ.items() if name not in bind}


def own_address(suffix: str) -> str:
    """Return the address by which the job's other nodes reach this one, in its fast network by a suffix (`-ib0`).

    A number, not a name: the names of compute nodes may end in `.local`, or resolve to an IPv6 address or,
    on the node itself, to its loopback address. Without Slurm there are no others, and nobody else shall get in.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return "127.0.0.1"
    name = records.own_node() + suffix
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        if suffix:
            raise OSError(f"host_suffix: the name {name} does not resolve: {exc}") from exc
        found = []
    addresses = sorted({str(item[4][0]) for item in found}, key=lambda address: (":" in address, address))
    usable = [address for address in addresses if suffix or _reachable(address)]
    return usable[0] if usable else _address_of_default_route()


def _reachable(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def _address_of_default_route() -> str:
    # "Connecting" a UDP socket sends nothing; the kernel chooses the address it would send from.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:  # a laptop without any network
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def endpoint(address: str, port: int) -> str:
    """Return ADDRESS:PORT, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
