"""The sampler on a node where `job.sh` does not run: beside the payload there, by whoever starts that."""

import contextlib
import os
import select
import subprocess
import sys
from typing import Iterator

import processes
import records


@contextlib.contextmanager
def sampled(family: processes.Family, node: int) -> Iterator[None]:
    """Write down what the job uses on its node of that number; 0 is that of `job.sh`, which sees to it itself.

    It ends when its standard input does, so that it dies with this process; `family.kill` leaves it its last sample.
    """
    program = records.run_directory() / "sampler" / "sample.py"
    if node == 0 or not program.exists():
        yield
        return
    folder = records.run_directory() / "usage"
    folder.mkdir(0o700, exist_ok=True)
    words = [
        sys.executable,
        "-E",
        "-s",
        "-S",
        "-B",
        str(program),
        str(folder / f"{node}.jsonl"),
        str(os.getpid()),
    ]
    (until, end), (over, running) = os.pipe(), os.pipe()
    sampler = subprocess.Popen(words, stdin=until, stdout=running, stderr=subprocess.DEVNULL)
    sampler.returncode = 0  # its end is seen by whoever waits for any child
    family.spared.add(sampler.pid)
    os.close(until)
    os.close(running)
    try:
        yield
    finally:
        os.close(end)
        select.select([over], [], [], 2)  # a dead file system is nothing to wait for
        family.spared.clear()
        family.kill()
