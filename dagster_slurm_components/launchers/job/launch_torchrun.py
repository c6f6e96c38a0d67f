"""The `torchrun` launcher: torch's own agent on each node, which starts and watches the ranks there.

Usage: launch_torchrun.py --nproc-per-node N [--nnodes MIN:MAX] [--max-restarts N] [--rendezvous-timeout SECONDS]
       [--host-suffix SUFFIX] [--output first|all] [--grace SECONDS] [--inside WORD]... [--python PYTHON] -- PAYLOAD...

On one node the agent runs at once, with a rendezvous of its own. On several, srun starts this program once on each,
with `--rdzv-id ID --rdzv-endpoint ADDRESS:PORT` added. Only the agent, and so the ranks, run in the environment's
container, by the words `--inside`; its Python is PYTHON.
"""

import argparse
import os
import signal
from typing import Dict, List, Tuple

import command_line
import nodes
import ports
import processes
import records
import sampling


def range_of_nodes(wanted: str, allocated: int) -> str:
    """Return torchrun's --nnodes; the agents don't wait for more nodes than the job has.

    >>> range_of_nodes("1:4", 2)
    '1:2'
    """
    if not wanted:
        return str(allocated)
    least, _, most = wanted.partition(":")
    return f"{least}:{min(int(most or least), allocated)}"


def several_nodes(options: argparse.Namespace, payload: List[str], count: int) -> int:
    """Run one agent on each node and return the job's exit code."""
    job = os.environ["SLURM_JOB_ID"]
    lock, port = ports.claim(int(job))
    step = ["srun", f"--nodes={count}", f"--ntasks={count}", *nodes.srun_options()]
    if options.nnodes:  # elastic: the others go on without a node
        step += ["--kill-on-bad-exit=0", "--no-kill", "--wait=0"]
    step += command_line.program("launch_torchrun.py") + command_line.own_words()
    step += [
        "--nnodes=" + range_of_nodes(options.nnodes, count),
        # A requeued job is a new rendezvous.
        f"--rdzv-id={job}.{os.environ.get('DAGSTER_SLURM_RESTART_COUNT') or 0}",
        "--rdzv-endpoint=" + nodes.endpoint(nodes.own_address(options.host_suffix), port),
    ]
    code, stopped = processes.run_step([*step, "--", *payload], options.grace, nodes.step_environment())
    lock.close()
    if code and options.nnodes and not stopped:
        least = int(options.nnodes.partition(":")[0])
        if records.succeeded() >= least:
            records.say(f"some nodes were lost, but {least} or more came to a good end")
            return 0
    return records.conclude(code, stopped)


def rendezvous(options: argparse.Namespace, number: int) -> List[str]:
    """Return torchrun's options of the rendezvous, for the node of that number."""
    if not options.rdzv_endpoint:
        return ["--standalone"]
    conf = {
        # Said outright: torch would compare host names, which differ where a fast network has its own.
        "is_host": int(number == 0),
        "join_timeout": options.rendezvous_timeout,
        "read_timeout": options.rendezvous_timeout,
    }
    return [
        "--nnodes=" + options.nnodes,
        "--rdzv-backend=c10d",
        "--rdzv-id=" + options.rdzv_id,
        "--rdzv-endpoint=" + options.rdzv_endpoint,
        "--rdzv-conf=" + ",".join(f"{key}={value}" for key, value in conf.items()),
        "--local-addr=" + nodes.own_address(options.host_suffix),
    ]


def environment(options: argparse.Namespace, number: int) -> Dict[str, str]:
    """Return the agent's environment: each rank has its share of the node's CPUs for threads."""
    env = dict(os.environ)
    if options.nproc_per_node.isdigit():
        share = max(1, nodes.own_cpus(number) // int(options.nproc_per_node))
        env.setdefault("OMP_NUM_THREADS", str(share))
    return env


def run_agent(options: argparse.Namespace, payload: List[str]) -> Tuple[int, bool]:
    """Run this node's agent; return its exit code, and whether it was asked to stop."""
    number = int(os.environ.get("SLURM_NODEID") or 0)
    if options.nproc_per_node == "gpu":
        # PyTorch would count one only of several MIG instances, as CUDA does.
        options.nproc_per_node = str(len(nodes.visible_gpus() or ()) or "gpu")
    agent = [*command_line.payloads_python(options), "-m", "torch.distributed.run"]
    agent += ["--nproc-per-node=" + options.nproc_per_node, "--max-restarts=" + options.max_restarts]
    # The `--` keeps argparse from taking the payload's options for abbreviations of torchrun's (`--signals`).
    agent += [*rendezvous(options, number), "--no-python", "--"]
    agent += command_line.rank(options, "RANK", "stop", payload, options.python)
    family = processes.Family()
    # The agent would die of USR1 and USR2, which are meant for the ranks, and it passes nothing on.
    user_signals = (signal.SIGUSR1, signal.SIGUSR2)
    family.start("agent", agent, env=environment(options, number), ignored=user_signals)
    relay = None if options.rdzv_endpoint else family.signal_all
    with sampling.sampled(family, number):
        code, stopped = processes.attend(family, "agent", options.grace + 5, relay)
    if code and not stopped:
        records.record("agent", code)
    elif not code:
        records.succeed()
    return code, stopped


def main() -> int:
    """Run the payload's ranks and return the exit code: the job's, or on one of several nodes the agent's."""
    options, payload = command_line.split(
        nproc_per_node=str,
        nnodes="",
        max_restarts="0",
        rendezvous_timeout=300,
        host_suffix="",
        output="first",
        grace=15.0,
        rdzv_id="",
        rdzv_endpoint="",
        inside=[],
        python="",
    )
    if options.rdzv_endpoint:
        return run_agent(options, payload)[0]
    records.prepare()
    if nodes.count() > 1:
        return several_nodes(options, payload, nodes.count())
    return records.conclude(*run_agent(options, payload))


if __name__ == "__main__":
    command_line.finish(main)
