"""The `srun` launcher where there is no Slurm: ranks as plain processes of this machine.

Usage: launch_local_ranks.py --tasks N [--output first|all] [--grace SECONDS] -- PAYLOAD...

Runs inside the job on Python 3.6 or newer, with the standard library only.
"""

import argparse
import os
import time
from typing import Dict, Optional

import command_line
import processes
import records


def variables(number: int, tasks: int) -> Dict[str, str]:
    """Return what srun tells a task about itself; nothing that speaks of a job, for there is none."""
    values = {"PROCID": number, "LOCALID": number, "NTASKS": tasks, "NPROCS": tasks, "NODEID": 0, "NNODES": 1}
    return {"SLURM_" + name: str(value) for name, value in values.items()}


def main() -> int:
    """Run the ranks; the first that fails ends them all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--output", default="first")
    parser.add_argument("--grace", type=float, default=15)
    options, payload = command_line.split(parser)
    records.prepare()
    rank = [*command_line.program("rank.py"), "--number=SLURM_PROCID", "--output=" + options.output]
    # Without /proc the ranks alone can be signalled, and have to pass it on.
    rank += [f"--grace={options.grace:g}", "--signals=" + ("leave" if processes.LINUX else "stop"), "--"]
    family = processes.Family()
    for number in range(options.tasks):
        family.start(str(number), rank + payload, env=dict(os.environ, **variables(number, options.tasks)))
    left, code = options.tasks, 0
    kill_at: Optional[float] = None
    while left:
        event = family.wait(processes.left_until(kill_at))
        if event is None:
            break
        if isinstance(event, processes.Ended):
            left -= 1
            if not event.code or code:
                continue
            code, number = event.code, int(processes.STOP[0])
        elif isinstance(event, processes.Arrived):
            number = event.signal
        family.signal_all(number)
        if number in processes.STOP:
            # Longer than the ranks' own grace: they clean up themselves.
            kill_at = kill_at or time.monotonic() + options.grace + 5
    family.kill()
    return records.conclude(code)


if __name__ == "__main__":
    command_line.finish(main)
