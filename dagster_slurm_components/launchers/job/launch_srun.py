"""The `srun` launcher under Slurm: one process for each task.

Usage: launch_srun.py [--output first|all] [--grace SECONDS] [--srun OPTION]... -- PAYLOAD...
"""

import command_line
import processes
import records


def main() -> int:
    """Run the step and return the job's exit code."""
    options, payload = command_line.split(output="first", grace=15.0, srun=[])
    records.prepare()
    # Slurm signals the payload too.
    rank = command_line.rank(options, "SLURM_PROCID", "leave", payload)
    return records.conclude(*processes.run_step(["srun", *options.srun, *rank], options.grace))


if __name__ == "__main__":
    command_line.finish(main)
