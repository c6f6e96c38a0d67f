"""Run one rank: its own log, its own record of a failure, and only rank 0 speaks to Dagster.

Usage: rank.py --number VARIABLE [--output first|all] [--grace SECONDS] [--signals leave|stop] -- PAYLOAD...

VARIABLE holds the rank's number. Signals: `leave`: whoever signals us signals the payload too, as Slurm does; `stop`:
pass on SIGTERM and SIGINT, which torchrun's agent sends to us alone.
"""

import os
import signal

import command_line
import processes
import records


def main() -> int:
    """Run the rank and return its exit code."""
    options, payload = command_line.split(number=str, output="first", grace=15.0, signals="leave")
    rank = int(os.environ[options.number])
    name = f"rank {rank} on {records.own_node()}"
    log = str(records.folder() / str(rank))
    to_job_log = rank == 0 or options.output == "all"
    out, err = (None, None) if to_job_log else (open(log + ".out", "ab"), open(log + ".err", "ab"))  # noqa: SIM115
    family = processes.Family()

    def relay(number: int) -> None:
        if options.signals == "stop" and number in processes.STOP:
            family.signal("rank", number, group=True)

    stopped = False
    try:
        env = command_line.without_pipes() if rank else None
        family.start("rank", payload, env=env, stdout=out, stderr=err)
    except OSError as exc:
        code = records.say_not_started(name, exc)
    else:
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
