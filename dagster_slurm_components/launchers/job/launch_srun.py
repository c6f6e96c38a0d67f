"""The `srun` launcher under Slurm: one process for each task.

Usage: launch_srun.py [--output first|all] [--grace SECONDS] [--srun OPTION]... -- PAYLOAD...

Runs inside the job on Python 3.6 or newer, with the standard library only.
"""

import argparse
import functools

import command_line
import processes
import records


def main() -> int:
    """Run the step and return the job's exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", default="first")
    parser.add_argument("--grace", type=float, default=15)
    parser.add_argument("--srun", action="append", default=[])
    options, payload = command_line.split(parser)
    records.prepare()
    rank = [*command_line.program("rank.py"), "--number=SLURM_PROCID", "--output=" + options.output]
    rank += [f"--grace={options.grace:g}"]
    family = processes.Family()
    family.start("srun", ["srun", *options.srun, *rank, "--", *payload])
    # Longer than the ranks' own grace: they clean up on their nodes.
    code, stopped = processes.attend(
        family, "srun", options.grace + 10, functools.partial(family.signal, "srun")
    )
    family.kill()
    return records.conclude(code, stopped)


if __name__ == "__main__":
    command_line.finish(main)
