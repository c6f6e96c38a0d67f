"""The way into a job that runs: a program on one of its nodes, in the payload's environment and folder."""

from __future__ import annotations

import io
import json
import os
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.program import program, shipped
from dagster_slurm_components.hosts.satellite.calls import FileRead
from dagster_slurm_components.hosts.stream import Size, Stream
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.schedulers import SlurmScheduler
from dagster_slurm_components.jobs.status import StatusRecord, read_statuses
from dagster_slurm_components.jobs.target import Target

_FOLDER = "into"
_LONGEST = 256
_PIECE = 64 * 1024
_STACKS = 120.0


def ready_command(command: str, handle: JobHandle, profile: str, *more: str) -> str:
    """Return a command that leads into a job, ready to be typed: ``dg-slurm shell 4711 --profile production``."""
    return shlex.join(["dg-slurm", command, handle.job_id, *more, "--profile", profile])


@dataclass(frozen=True)
class RunningJob:
    """A job whose payload runs; of an array one element.

    Attributes:
        place: Where it runs.
        handle: Which it is.
        status: What it has written of itself.
    """

    place: Target
    handle: JobHandle
    status: StatusRecord

    def run(
        self,
        command: Sequence[str] = (),
        *,
        rank: int | None = None,
        size: Size | None = None,
        outside: bool = False,
        everywhere: bool = False,
    ) -> Stream:
        """Start a program beside the payload, or a shell; on a terminal if that has a ``size``.

        It is a step of the job that shares the payload's CPUs, memory and GPUs, and ends with its stream. It runs on
        the job's first node, or on that of a rank.

        Args:
            command: The program and its arguments; ``@python`` stands for the payload's Python.
            rank: A rank of the payload.
            size: The size of our terminal.
            outside: Whether it stays outside of the payload's container.
            everywhere: Whether it runs on all nodes of the job; each line begins with the node's number then.

        Raises:
            HostError: The host can't be reached, or refuses.
            DagsterSlurmError: There is no such rank.
        """
        script = self.send("into.sh", shipped("jobs/shell/into.sh").encode())
        words = ["bash", script, self.handle.run_dir, str(self.status.restart)]
        words += [*(["--outside"] if outside else []), *command]
        if self.on_slurm:
            words = [
                *(self._steps() if everywhere else self._step(rank)),
                *(["--pty"] if size else []),
                "--",
                *words,
            ]
        elif rank is not None:
            self._node_of(rank)  # there is one node; a rank that there is not is a mistake all the same
        # What draws on the terminal has to know which it is.
        env = {"TERM": os.environ.get("TERM", "dumb")} if size else None
        return Stream(self.place.satellite.host, words, env=env, size=size)

    def relay(self, port: int, *, rank: int | None = None) -> Stream:
        """Start what connects to a port of the job's first node, or of a rank's: the far end of a ``Relay``."""
        program_file = self.send("relay.py", program("dagster_slurm_components.hosts.satellite.relay"))
        return self.run(["@python", "-I", "-S", program_file, str(port)], rank=rank, outside=True)

    @property
    def on_slurm(self) -> bool:
        """Whether it is a job of Slurm."""
        return isinstance(self.place.scheduler, SlurmScheduler)

    @property
    def ended(self) -> bool:
        """Whether the payload has ended meanwhile, by the job's own word."""
        (status,) = read_statuses(self.place.satellite, [self.handle])
        return status is None or status.exit_code is not None

    def send(self, name: str, content: bytes) -> str:
        """Put a file into the run directory, where the node sees it; return its path there."""
        folder, satellite = f"{self.handle.run_dir}/{_FOLDER}", self.place.satellite
        satellite.mkdir(folder, self.place.workdir)
        satellite.put(f"{folder}/{name}", content)
        return f"{folder}/{name}"

    def _step(self, rank: int | None) -> list[str]:
        where = "--relative=0" if rank is None else f"--nodelist={self._node_of(rank)}"
        return [*self._srun(1), where]

    def _steps(self) -> list[str]:
        return [*self._srun(int(self.status.get("num_nodes") or 1)), "--label", "--ntasks-per-node=1"]

    def _srun(self, nodes: int) -> list[str]:
        # Of an array's task srun wants the number alone.
        job_id = self.status.get("job_id") or self.handle.job_id
        count = [f"--nodes={nodes}", f"--ntasks={nodes}"]
        return ["srun", "--overlap", f"--jobid={job_id}", *count, "--cpu-bind=none"]

    def _node_of(self, rank: int) -> str:
        folder = f"{self.handle.run_dir}/ranks"
        (file,) = self.place.satellite.read([FileRead(f"{folder}/{rank}.node", 0, _LONGEST)])
        if not file.exists:
            raise DagsterSlurmError(
                f"job {self.handle.job_id} has no rank {rank} (yet)",
                where=folder,
                hint="The launchers `srun` and `torchrun` have ranks, from 0; without --rank it is the first node.",
            )
        return file.data.decode().strip()


def attach_debugger(job: RunningJob, *, rank: int | None = None, pid: int | None = None) -> tuple[int, str]:
    """Let debugpy into a payload's Python, of a rank or by its id; return its port on the node, and its folder there.

    Raises:
        HostError: The host can't be reached, or refuses.
        DagsterSlurmError: The environment or the node lacks something, or there are several.
    """
    script = job.send("attach_debugger.py", shipped("jobs/attach_debugger.py").encode())
    words = ["@python", script, job.handle.run_dir, "" if rank is None else str(rank), str(pid or "")]
    errors = io.BytesIO()
    with job.run(words, rank=rank) as stream:
        said = _said(stream, errors)
    told = (
        json.loads(said.splitlines()[-1]) if said else {"error": errors.getvalue().decode("utf-8", "replace")}
    )
    if "port" not in told:
        raise DagsterSlurmError(f"job {job.handle.job_id}: {told['error']}", hint=told.get("hint"))
    return int(told["port"]), str(told["folder"])


def stacks(job: RunningJob, *, limit: float = _STACKS) -> str:
    """Return for each process of the payload on each node where it stands, as text for people.

    Of Python the frames, if py-spy is in the payload's environment, of all else what the kernel tells of its threads.
    The payload does not notice it. What takes longer than ``limit`` seconds is left out.

    Raises:
        HostError: The host can't be reached, or refuses.
        SatelliteError: No step can be made in the job.
    """
    script = job.send("stacks.sh", shipped("jobs/shell/stacks.sh").encode())
    with job.run(["bash", script, job.handle.run_dir], outside=True, everywhere=True) as stream:
        timer = threading.Timer(limit, stream.stop)
        timer.start()
        try:
            said = _said(stream)
        finally:
            timer.cancel()
    lines = said.decode("utf-8", "replace").splitlines()
    return "\n".join(_by_node(lines) if job.on_slurm else lines)


def _said(stream: Stream, errors: IO[bytes] | None = None) -> bytes:
    """Return all that a program prints, which is told nothing; what it says beside that goes to ``errors``."""
    stream.end()
    return b"".join(iter(lambda: stream.output(_PIECE, errors), b""))


def _by_node(lines: list[str]) -> list[str]:
    """Bring together what srun has labelled with the node's number."""
    pairs = [line.partition(": ") for line in lines]
    return [text for _, _, text in sorted(pairs, key=lambda pair: pair[0].strip().zfill(9))]
