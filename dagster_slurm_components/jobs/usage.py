"""What a job uses over time, as the sampler writes it: ``usage/<number of the node>.jsonl`` in the run directory.

Each start of the job begins with a head, samples follow; `sampler/sample.py` says which fields they have.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

_ABSURD = 1e18
"""Neither bytes, seconds nor joules of a job come to that: whoever draws and adds up need not think of it."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one, that the job has on a node; its memory is in bytes."""

    uuid: str
    name: str
    memory: int | None


@dataclass(frozen=True)
class GpuSample:
    """One GPU at a moment.

    Attributes:
        busy: From 0 to 1: in which part of the time since the last sample it computed.
        memory: Bytes in use, the driver's own included.
        watts: Power it draws.
        celsius: Temperature.
        joules: Energy it took since the job began.
    """

    busy: float | None = None
    memory: int | None = None
    watts: float | None = None
    celsius: float | None = None
    joules: float | None = None


@dataclass(frozen=True)
class Sample:
    """What a job has used on a node by a moment; the counters begin at 0 with each start of the job.

    Attributes:
        at: Seconds since the epoch, by the node's clock.
        cpu: Seconds of CPU time.
        memory: Bytes of the working set: without files that are cached and were not looked at for a while.
        peak: The largest such number so far, or the kernel's own.
        read: Bytes read from storage.
        written: Bytes written to storage.
        received: Bytes that the whole node received.
        sent: Bytes that the whole node sent.
        gpus: In the order of ``NodeUsage.gpus``.
    """

    at: float
    cpu: float | None = None
    memory: int | None = None
    peak: int | None = None
    read: int | None = None
    written: int | None = None
    received: int | None = None
    sent: int | None = None
    gpus: tuple[GpuSample, ...] = ()


@dataclass(frozen=True)
class NodeUsage:
    """What a job used on one node.

    Attributes:
        cpus: How many the job has there.
        memory_limit: Bytes that it has there, if it is limited.
        source: Where the numbers are from: ``cgroup2``, ``cgroup1`` or ``processes``.
        starts: When the job began there, the first time first; a requeued job has several.
        samples: Of all starts, in order.
    """

    node: str
    cpus: int
    memory_limit: int | None
    source: str
    gpus: tuple[Gpu, ...]
    starts: tuple[float, ...]
    samples: tuple[Sample, ...]


def usage_file(node: int) -> str:
    """Return the place in the run directory of what the node of that number writes; ``job.sh`` runs on node 0."""
    return f"usage/{node}.jsonl"


def parse_usage(data: bytes) -> NodeUsage | None:
    r"""Return what a file tells, or nothing where no start of the job stands in it.

    Whole lines only: what follows the last newline may still be in flight. A line that makes no sense is passed over,
    as is what stands before the first head.

    Example:
        >>> parse_usage(b'{"node": "n1", "t": 100.0, "cpus": 4}\n{"t": 5.0, "mem": 1024}\n{"t": 1').samples[0].memory
        1024
    """
    newest: NodeUsage | None = None
    starts: list[float] = []
    samples: list[Sample] = []
    for line in _lines(data):
        at = _number(line.get("t"))
        if at is None:
            continue
        if "node" in line:
            newest = _head(line)
            starts.append(at)
        elif starts:
            samples.append(_sample(line, starts[-1] + at))
    if newest is None:
        return None
    return NodeUsage(
        newest.node,
        newest.cpus,
        newest.memory_limit,
        newest.source,
        newest.gpus,
        tuple(starts),
        tuple(samples),
    )


def _lines(data: bytes) -> Iterator[Mapping[str, Any]]:
    for text in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield line


def _head(line: Mapping[str, Any]) -> NodeUsage:
    cpus = _integer(line.get("cpus")) or 1
    source = str(line.get("from") or "")
    gpus = tuple(_items(line.get("gpus"), _gpu))
    return NodeUsage(str(line["node"]), cpus, _integer(line.get("memory")), source, gpus, (), ())


def _gpu(fields: Sequence[object]) -> Gpu:
    uuid, name, memory = _exactly(fields, 3)
    return Gpu(str(uuid or ""), str(name or ""), _integer(memory))


def _sample(line: Mapping[str, Any], at: float) -> Sample:
    sizes = {name: _integer(line.get(name)) for name in ("peak", "read", "written", "received", "sent")}
    memory = _integer(line.get("mem"))
    gpus = tuple(_items(line.get("gpu"), _gpu_sample))
    return Sample(at, _number(line.get("cpu")), memory, gpus=gpus, **sizes)


def _gpu_sample(fields: Sequence[object]) -> GpuSample:
    busy, memory, watts, celsius, joules = _exactly(fields, 5)
    return GpuSample(_number(busy), _integer(memory), _number(watts), _number(celsius), _number(joules))


def _items(value: object, read: Callable[[Sequence[object]], _T]) -> Iterator[_T]:
    for each in value if isinstance(value, list) else ():
        yield read(each if isinstance(each, list) else ())


def _exactly(fields: Sequence[object], count: int) -> Sequence[object]:
    return (*fields, *(None,) * count)[:count]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < _ABSURD else None


def _integer(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
