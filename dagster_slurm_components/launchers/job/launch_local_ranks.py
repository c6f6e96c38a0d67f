"""The `srun` launcher where there is no Slurm: ranks as plain processes of this machine.

Usage: launch_local_ranks.py --tasks N [--output first|all] [--grace SECONDS] -- PAYLOAD...
"""

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
    options, payload = command_line.split(tasks=int, output="first", grace=15.0)
    records.prepare()
    # Without /proc the ranks alone can be signalled, and have to pass it on.
    rank = command_line.rank(options, "SLURM_PROCID", "leave" if processes.LINUX else "stop", payload)
    family = processes.Family()
    for number in range(options.tasks):
        family.start(str(number), rank, env=dict(os.environ, **variables(number, options.tasks)))
    left, code = options.tasks, 0
    kill_at: Optional[float] = None
    while left:
        event = family.wait(kill_at)
        if event is None:
            break
        number = event.signal or int(processes.STOP[0])
        if event.ended:
            left -= 1
            if not event.code or code:
                continue
            code = event.code
        family.signal_all(number)
        if number in processes.STOP:
            # Longer than the ranks' own grace: they clean up themselves.
            kill_at = kill_at or time.monotonic() + options.grace + 5
    family.kill()
    return records.conclude(code)


if __name__ == "__main__":
    command_line.finish(main)
