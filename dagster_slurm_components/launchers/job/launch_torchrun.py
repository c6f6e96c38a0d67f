"""The `torchrun` launcher: one of its agents on each node, which start the ranks.

Usage: launch_torchrun.py --nproc-per-node N [--nnodes MIN:MAX] [--max-restarts N] [--rendezvous-timeout SECONDS]
       [--host-suffix SUFFIX] [--output first|all] [--grace SECONDS] -- PAYLOAD...

On one node the agent runs at once, with a rendezvous of its own; on several, one task each runs torchrun_node.py.

Runs inside the job on Python 3.6 or newer, with the standard library only.
"""

import argparse
import functools
import os
from typing import List, Tuple

import command_line
import nodes
import ports
import processes
import records
import torchrun_node


def parse() -> Tuple[argparse.Namespace, List[str]]:
    """Return the options and the payload."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nproc-per-node", required=True)
    parser.add_argument("--nnodes", default="")
    parser.add_argument("--max-restarts", default="0")
    parser.add_argument("--rendezvous-timeout", type=int, default=300)
    parser.add_argument("--host-suffix", default="")
    parser.add_argument("--output", default="first")
    parser.add_argument("--grace", type=float, default=15)
    return command_line.split(parser)


def agent_options(options: argparse.Namespace) -> List[str]:
    """Return what all agents are told, and which rank program starts the payload."""
    return [
        "--nproc-per-node=" + options.nproc_per_node,
        "--max-restarts=" + options.max_restarts,
        "--output=" + options.output,
        f"--grace={options.grace:g}",
    ]


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
    elastic = bool(options.nnodes)
    step = ["srun", f"--nodes={count}", f"--ntasks={count}", *nodes.srun_options()]
    if elastic:  # the others go on without a node
        step += ["--kill-on-bad-exit=0", "--no-kill", "--wait=0"]
    agent = command_line.program("torchrun_node.py") + agent_options(options)
    agent += [
        "--nnodes=" + range_of_nodes(options.nnodes, count),
        # A requeued job is a new rendezvous.
        f"--rdzv-id={job}.{os.environ.get('DAGSTER_SLURM_RESTART_COUNT') or 0}",
        "--rdzv-endpoint=" + nodes.endpoint(nodes.own_address(options.host_suffix), port),
        f"--rendezvous-timeout={options.rendezvous_timeout}",
        "--host-suffix=" + options.host_suffix,
    ]
    family = processes.Family()
    family.start("srun", step + agent + ["--"] + payload)
    # Longer than the agents' own grace: they clean up on their nodes.
    relay = functools.partial(family.signal, "srun")
    code, stopped = processes.attend(family, "srun", options.grace + 10, relay)
    family.kill()
    lock.close()
    if code and elastic and not stopped:
        least = int(options.nnodes.partition(":")[0])
        if records.succeeded() >= least:
            records.say(f"some nodes were lost, but {least} or more came to a good end")
            return 0
    return records.conclude(code, stopped)


def one_node(options: argparse.Namespace, payload: List[str]) -> int:
    """Run one agent here and return the job's exit code."""
    agent = argparse.Namespace(**vars(options))
    agent.standalone = True
    code, stopped = torchrun_node.run(agent, payload)
    return records.conclude(code, stopped)


def main() -> int:
    """Run the payload's ranks and return the job's exit code."""
    options, payload = parse()
    records.prepare()
    count = nodes.count()
    return several_nodes(options, payload, count) if count > 1 else one_node(options, payload)


if __name__ == "__main__":
    command_line.finish(main)
