"""What a watched job uses: its newest figures while it runs, and all that is known of it once it has ended.

A thousand jobs are followed at once. So of each node the newest figures are kept and no samples, and of the samples
that are read together the first and the last are parsed: counters only grow. What a GPU does is told for a moment:
there all count. At the end each file is read once more, whole.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from dagster_slurm_components.hosts.satellite.calls import FileData, FileRead
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.usage import GpuSample, NodeUsage, Sample, parse_usage, usage_file

MOST_NODES = 64
"""Nodes of a job whose files are read."""
FIRST, LONGEST = 60.0, 300.0
"""Seconds from a job's start to the first look at what it uses, and the most between two looks."""
_SHARE = 0.1
"""Of a job's age: the time between two looks."""
_PIECE, _TAIL = 32 * 1024, 8 * 1024
"""Bytes that are read of a file while its job runs; where more is left only the tail is new enough."""
_WHOLE, _MOST = 256 * 1024, 2 * 1024 * 1024
"""Bytes that are read at once of the file of a job that has ended, and in all."""
_HEAD = b'{"node"'
_IDLE = 0.01
"""The part of a core, or of a GPU, below which nothing is computed."""


@dataclass(frozen=True)
class NodeNow:
    """What a job uses on one node.

    Attributes:
        usage: The node, with the newest sample alone.
        cpu: CPUs in use, on average since the look before.
        gpus: Each GPU's newest sample, where ``busy`` is the average since the look before.
        seen: When the newest sample was read, by the watcher's clock.
        idle: Seconds for which nothing was computed, read or written; 0 where something was, or nobody knows.
    """

    usage: NodeUsage
    cpu: float | None = None
    gpus: tuple[GpuSample, ...] = ()
    seen: float = 0.0
    idle: float = 0.0

    @property
    def last(self) -> Sample:
        """The newest sample."""
        return self.usage.samples[-1]


def node_now(usage: NodeUsage | None, before: NodeNow | None = None, seen: float = 0.0) -> NodeNow | None:
    """Return the newest figures of a node, by its samples since the look ``before``, if there are any."""
    if usage is None or not usage.samples:
        return before
    first, last = usage.samples[0] if before is None else before.last, usage.samples[-1]
    seconds, cpu = last.at - first.at, None
    if first.cpu is not None and last.cpu is not None and seconds > 0:
        cpu = max(0.0, last.cpu - first.cpu) / seconds
    busy = [[gpu.busy for gpu in each] for each in zip(*(one.gpus for one in usage.samples), strict=False)]
    known = [[each for each in values if each is not None] for values in busy]
    gpus = [
        replace(gpu, busy=sum(of) / len(of) if of else None)
        for gpu, of in zip(last.gpus, known, strict=False)
    ]
    rests = cpu is not None and cpu < _IDLE and (first.read, first.written) == (last.read, last.written)
    rests = rests and len(gpus) == len(usage.gpus) and known == busy and all(max(of) < _IDLE for of in known)
    idle = seconds + (before.idle if before else 0.0) if rests else 0.0
    return NodeNow(replace(usage, samples=(last,)), cpu, tuple(gpus), seen, idle)


@dataclass(slots=True)
class UsageTail:
    """What is new in one node's file, as far as it was read; of that the ``recent`` samples, if somebody wants them."""

    offset: int = 0
    inode: int | None = None
    head: bytes = b""
    now: NodeNow | None = None
    recent: deque[Sample] | None = None

    def read(self, job: JobHandle, node: int) -> FileRead:
        """Return what is to be read next."""
        return FileRead(job.file(usage_file(node)), self.offset, _PIECE)

    def take(self, file: FileData, now: float) -> bool:
        """Use what was read now; return whether there is more that is newer."""
        if file.size < self.offset or self.inode not in (None, file.inode):
            self.offset, self.inode, self.head, self.now = 0, None, b"", None
            return True
        self.inode = file.inode if file.exists else None
        whole = file.data[: file.data.rfind(b"\n") + 1] or (file.data if len(file.data) == _PIECE else b"")
        self.offset += len(whole)
        lines = whole.splitlines()
        for start in [at for at, line in enumerate(lines) if line.startswith(_HEAD)][-1:]:
            self.head, self.now, lines = lines[start], None, lines[start + 1 :]  # the job began, perhaps anew
        if self.recent is None and b"[[" not in self.head:
            lines = lines[:1] + lines[1:][-1:]
        usage = parse_usage(b"\n".join([self.head, *lines, b""]))
        self.now = node_now(usage, self.now, now)
        if self.recent is not None and usage is not None:
            self.recent += usage.samples
        behind = file.size - self.offset > _PIECE
        self.offset = file.size - _TAIL if behind else self.offset
        return behind


@dataclass(slots=True)
class Meter:
    """Reads what one job uses; all times are those of one monotonic clock, in seconds.

    Attributes:
        longest: The most between two looks.
        reads_on: Of a job that has ended the nodes whose files are not read whole yet.
    """

    longest: float = LONGEST
    reads_on: set[int] = field(default_factory=set)
    _read_at: float = 0.0
    _tails: dict[int, UsageTail] = field(default_factory=dict)
    _whole: dict[int, bytearray] | None = None

    def begin_anew(self) -> None:
        """The job is started once more: what is known of it tells of its earlier start."""
        self._read_at = 0.0
        for tail in self._tails.values():
            tail.now = None

    def end(self, nodes: int) -> None:
        """The job has ended: all files are read once more, from their beginning."""
        self._whole = {node: bytearray() for node in range(min(nodes, MOST_NODES))}
        self.reads_on = set(self._whole)

    def due(self, job: JobHandle, now: float, began: float, nodes: int) -> list[tuple[int, FileRead]]:
        """Return of which nodes what is to be read now of a job that began then."""
        if self._whole is not None:
            begin = {node: len(self._whole[node]) for node in self.reads_on}
            return [(node, FileRead(job.file(usage_file(node)), at, _WHOLE)) for node, at in begin.items()]
        if now < max(self._read_at, began + min(FIRST, self.longest)):
            return []
        self._read_at = now + min(self.longest, max(FIRST, _SHARE * (now - began)))
        numbers = range(min(nodes, MOST_NODES))
        return [(node, (self._tails.get(node) or UsageTail()).read(job, node)) for node in numbers]

    def take(self, node: int, file: FileData, now: float) -> None:
        """Use what was read of a node's file now."""
        if self._whole is None:
            if file.exists and self._tails.setdefault(node, UsageTail()).take(file, now):
                self._read_at = 0.0
            return
        whole = self._whole[node]
        whole += file.data
        if not file.exists or file.error or len(whole) >= min(file.size, _MOST):
            self.reads_on.discard(node)

    @property
    def nodes(self) -> tuple[NodeNow, ...]:
        """What each node uses now, of which anything is known."""
        return tuple(tail.now for _, tail in sorted(self._tails.copy().items()) if tail.now is not None)

    @property
    def usage(self) -> tuple[NodeUsage, ...]:
        """All that is known of a job that has ended, by node."""
        found = [parse_usage(bytes(whole)) for _, whole in sorted((self._whole or {}).items())]
        return tuple(each for each in found if each is not None)
