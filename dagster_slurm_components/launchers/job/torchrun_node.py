"""One node of the `torchrun` launcher: its agent, which starts and watches the ranks of this node.

Runs inside the job on Python 3.6 or newer, with the standard library only; the agent is torch's own.
"""

import argparse
import os
import signal
from typing import Dict, List, Tuple

import command_line
import nodes
import processes
import records

_MODULE = "torch.distributed.run"


def parse() -> Tuple[argparse.Namespace, List[str]]:
    """Return the options and the payload."""
    parser = argparse.ArgumentParser()
    for name in ("nproc-per-node", "max-restarts", "nnodes", "rdzv-id", "rdzv-endpoint"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--rendezvous-timeout", type=int, required=True)
    parser.add_argument("--host-suffix", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--grace", type=float, required=True)
    options, payload = command_line.split(parser)
    options.standalone = False
    return options, payload


def rendezvous(options: argparse.Namespace, number: int) -> List[str]:
    """Return torchrun's options of the rendezvous, for the node of that number."""
    if options.standalone:
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


def run(options: argparse.Namespace, payload: List[str]) -> Tuple[int, bool]:
    """Run the agent; return its exit code, and whether it was asked to stop."""
    number = int(os.environ.get("SLURM_NODEID") or 0)
    rank = [*command_line.program("rank.py"), "--number=RANK", "--output=" + options.output]
    rank += [f"--grace={options.grace:g}", "--signals=stop", "--"]
    agent = [os.environ["DAGSTER_SLURM_PYTHON"], "-m", _MODULE]
    agent += ["--nproc-per-node=" + options.nproc_per_node, "--max-restarts=" + options.max_restarts]
    # The `--` keeps argparse from taking the payload's options for abbreviations of torchrun's (`--signals`).
    agent += [*rendezvous(options, number), "--no-python", "--"]
    family = processes.Family()
    # The agent would die of USR1 and USR2, which are meant for the ranks, and it passes nothing on.
    user_signals = (signal.SIGUSR1, signal.SIGUSR2)
    family.start("agent", agent + rank + payload, env=environment(options, number), ignored=user_signals)
    relay = family.signal_all if options.standalone else None
    code, stopped = processes.attend(family, "agent", options.grace + 5, relay)
    family.kill()
    if code and not stopped:
        records.record("agent", code)
    elif not code:
        records.succeed()
    return code, stopped


if __name__ == "__main__":
    command_line.finish(lambda: run(*parse())[0])
