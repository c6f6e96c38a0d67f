"""The `srun` launcher under Slurm: one process for each task.

Usage: launch_srun.py [--output first|all] [--grace SECONDS] [--srun OPTION]... [--inside WORD]... [--python PYTHON]
       -- PAYLOAD...

Where srun itself makes the environment's container, the words `--inside` run it, and the ranks are inside on PYTHON.
"""

import command_line
import processes
import records


def main() -> int:
    """Run the step and return the job's exit code."""
    options, payload = command_line.split(output="first", grace=15.0, srun=[], inside=[], python="")
    records.prepare()
    # Slurm signals the payload too.
    rank = command_line.rank(options, "SLURM_PROCID", "leave", payload, options.python)
    step = [*options.inside, "--step", *options.srun, "--"] if options.inside else ["srun", *options.srun]
    return records.conclude(*processes.run_step([*step, *rank], options.grace))


if __name__ == "__main__":
    command_line.finish(main)
