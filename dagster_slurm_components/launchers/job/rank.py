"""Run one rank: its own log, its own record of a failure, and only rank 0 speaks to Dagster.

Usage: rank.py --number VARIABLE [--output first|all] [--grace SECONDS] [--signals stop|leave] -- PAYLOAD...

Runs inside the job on Python 3.6 or newer, with the standard library only.
"""

import argparse
import os
import signal
from typing import Dict, List, Tuple

import command_line
import processes
import records

# A rank that can't even start: what shells say.
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def parse() -> Tuple[argparse.Namespace, List[str]]:
    """Return the options and the payload."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", required=True, help="environment variable that holds the rank's number")
    parser.add_argument("--output", choices=("first", "all"), default="first")
    parser.add_argument("--grace", type=float, default=15)
    parser.add_argument(
        "--signals",
        choices=("leave", "stop"),
        default="leave",
        help="leave: whoever signals us signals the payload too, as Slurm does; stop: pass on SIGTERM and SIGINT,"
        " which torchrun's agent sends to us alone",
    )
    return command_line.split(parser)


def environment(rank: int) -> Dict[str, str]:
    """Return the payload's environment."""
    spared = "DAGSTER_PIPES_" if rank else "\0"
    return {name: value for name, value in os.environ.items() if not name.startswith(spared)}


def main() -> int:
    """Run the rank and return its exit code."""
    options, payload = parse()
    rank = int(os.environ[options.number])
    log = os.path.join(records.folder(), str(rank))
    shown = rank == 0 or options.output == "all"
    out, err = (None, None) if shown else (open(log + ".out", "ab"), open(log + ".err", "ab"))  # noqa: SIM115
    family = processes.Family()
    stopped = False
    try:
        family.start("rank", payload, env=environment(rank), stdout=out, stderr=err)
    except OSError as exc:
        records.say(f"rank {rank} on {records.own_node()} can't be started: {exc}")
        code = NOT_FOUND if isinstance(exc, FileNotFoundError) else NOT_EXECUTABLE
    else:

        def relay(number: int) -> None:
            if options.signals == "stop" and number in processes.STOP:
                family.signal("rank", number, group=True)

        code, stopped = processes.attend(family, "rank", options.grace, relay)
        family.kill()
    if stopped and code == 128 + signal.SIGKILL:
        text = f"rank {rank} on {records.own_node()} had not ended {options.grace:g} s after it was told to"
        records.say(text + ", and was killed")
    if code and not stopped:
        records.record(str(rank), code, start=int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0))
        text = f"rank {rank} on {records.own_node()} {records.in_words(code)}"
        last = "" if shown else records.tail(log + ".err")
        if last:
            text += f"; the end of ranks/{rank}.err:\n{last}"
        records.say(text)
    return code


if __name__ == "__main__":
    command_line.finish(main)
