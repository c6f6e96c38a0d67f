"""Where the processes of a payload stand: what a job that seems to hang does."""

import threading

from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.jobs.into import RunningJob

_LIMIT = 120.0
_PIECE = 64 * 1024


def stacks(job: RunningJob, *, limit: float = _LIMIT) -> str:
    """Return for each process of the payload on each node where it stands, as text for people.

    Of Python the frames, if py-spy is in the payload's environment, of all else what the kernel tells of its threads.
    The payload does not notice it. What takes longer than ``limit`` seconds is left out.

    Raises:
        HostError: The host can't be reached, or refuses.
        SatelliteError: No step can be made in the job.
    """
    script = job.send("stacks.sh", shipped("jobs/shell/stacks.sh").encode())
    words = ["bash", script, job.handle.run_dir]
    with job.run(words, outside=True, everywhere=True) as stream:
        stream.end()
        timer = threading.Timer(limit, stream.stop)
        timer.start()
        try:
            told = b"".join(iter(lambda: stream.output(_PIECE), b""))
        finally:
            timer.cancel()
    lines = told.decode("utf-8", "replace").splitlines()
    return "\n".join(_by_node(lines) if job.on_slurm else lines)


def _by_node(lines: list[str]) -> list[str]:
    """Bring together what srun has labelled with the node's number."""
    pairs = [line.partition(": ") for line in lines]
    return [text for _, _, text in sorted(pairs, key=lambda pair: pair[0].strip().zfill(9))]
