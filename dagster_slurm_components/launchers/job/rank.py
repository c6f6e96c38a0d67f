"""Run one rank: its own log, its own record of a failure, and only rank 0 speaks to Dagster.

Usage: rank.py --number VARIABLE [--output first|all] [--grace SECONDS] [--signals leave|stop] -- PAYLOAD...

VARIABLE holds the rank's number. Signals: `leave`: whoever signals us signals the payload too, as Slurm does; `stop`:
pass on SIGTERM and SIGINT, which torchrun's agent sends to us alone.
"""

import os
import signal
from typing import Dict

import command_line
import processes
import records
import sampling


def environment(rank: int) -> Dict[str, str]:
    """Return the rank's environment: of several MIG instances CUDA shows a process the first, so each has its own.

    It is device 0 then, and LOCAL_RANK says so, as by `torchrun --virtual-local-rank` (PyTorch 2.13).
    """
    env = command_line.of_payload(pipes=rank == 0)
    visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",")
    number = int(env.get("LOCAL_RANK") or 0)
    if visible[0].startswith("MIG-") and number < len(visible) > 1:
        env.update(CUDA_VISIBLE_DEVICES=visible[number], LOCAL_RANK="0")
    return env


def node_to_sample(variable: str) -> int:
    """Return the number of the node if this is its first rank of srun's; torchrun's agent sees to it itself."""
    first = variable == "SLURM_PROCID" and os.environ.get("SLURM_LOCALID") == "0"
    return int(os.environ.get("SLURM_NODEID") or 0) if first else 0


def main() -> int:
    """Run the rank and return its exit code."""
    options, payload = command_line.split(number=str, output="first", grace=15.0, signals="leave")
    rank = int(os.environ[options.number])
    name = f"rank {rank} on {records.own_node()}"
    log = str(records.folder() / str(rank))
    (records.folder() / f"{rank}.node").write_text(records.own_node() + "\n")  # where a shell finds it
    to_job_log = rank == 0 or options.output == "all"
    out, err = (None, None) if to_job_log else (open(log + ".out", "ab"), open(log + ".err", "ab"))  # noqa: SIM115
    family = processes.Family()

    def relay(number: int) -> None:
        if options.signals == "stop" and number in processes.STOP:
            family.signal("rank", number, group=True)

    stopped = False
    try:
        family.start("rank", payload, env=environment(rank), stdout=out, stderr=err)
    except OSError as exc:
        code = records.say_not_started(name, exc)
    else:
        with sampling.sampled(family, node_to_sample(options.number)):
            code, stopped = processes.attend(family, "rank", options.grace, relay)
    if stopped and code == 128 + signal.SIGKILL:
        records.say(f"{name} had not ended {options.grace:g} s after it was told to, and was killed")
    if code and not stopped:
        records.record(str(rank), code, start=int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0))
        last = "" if to_job_log else records.tail(log + ".err")
        end_of_log = f"; the end of ranks/{rank}.err:\n{last}" if last else ""
        records.say(f"{name} {records.in_words(code)}{end_of_log}")
    return code


if __name__ == "__main__":
    command_line.finish(main)
