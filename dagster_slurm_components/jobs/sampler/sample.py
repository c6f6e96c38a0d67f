"""Write down what a job uses on this node, until standard input ends.

Usage: sample.py FILE ROOT [STARTED]

FILE gets one line of JSON for each start, the head, and one for each sample (`jobs/usage.py` says what they hold). ROOT
is the process whose descendants are the job's, STARTED when the job began, in seconds since the epoch. Runs on Python
3.6, with little of its library: that costs time and memory, which are the payload's.
"""

import os
import re
import select
import signal
import sys
import time

import counters

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself is never loaded
    from typing import Any, Callable, Mapping

MOST = 2 * 2**20
"""Bytes that a file may grow to; the last of them are for the last sample."""
SHARE, START = 0.0015, 0.1
"""The part of a core that may be used, beside some seconds at first: 0.2 % at most, with what is not counted."""


def encode(value: object) -> str:
    """Return a value as JSON; the library's own module would cost 1.5 MiB."""
    if isinstance(value, dict):
        return "{%s}" % ",".join('"%s":%s' % (name, encode(each)) for name, each in value.items())
    if isinstance(value, list):
        return "[%s]" % ",".join(map(encode, value))
    if isinstance(value, str):
        return '"%s"' % re.sub(r'[^ -~]|["\\]', "?", value)
    return "null" if value is None else repr(round(value, 2) if isinstance(value, float) else value)


class Lines:
    """The file; it is opened for each line, for only a file that was closed is seen elsewhere on NFS."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._size = os.path.getsize(path) if os.path.exists(path) else 0

    def write(self, fields: "dict[str, object]", last: bool = False) -> None:
        """Append a line in one piece, if there is room; a full or lost file system is not the payload's affair."""
        line = encode(fields).encode() + b"\n"
        if self._size + len(line) > (MOST if last else MOST - 2**13):
            return
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                self._size += os.write(file, line)
            finally:
                os.close(file)
        except OSError:
            return


class Usage:
    """What the job uses here; ``gpus`` are objects of ``gpus.py``."""

    def __init__(
        self, family: counters.Family, cgroup: counters.Cgroup, gpus: "list[Any]", first: bool = True
    ) -> None:
        self._family, self._cgroup, self.gpus = family, cgroup, gpus
        # The elements of an array share their task's cgroup.
        self._cpu_before = 0 if first else cgroup.cpu() or 0
        self._ports = counters.ports()
        self._network_before = self._network()
        self._values = {}  # type: dict[str, object]
        self._peak = 0
        self._readings = []  # type: list[list[list[float | None]]]
        self._joules = [0.0 for _ in gpus]
        self._meters = {}  # type: dict[int, float]
        self._at = None  # type: float | None

    def look(self, at: float) -> None:
        """Find out, at a moment."""
        memory, cpu = self._family.look(), self._cgroup.cpu()
        of_cgroup = self._cgroup.memory()
        memory = memory if of_cgroup is None else of_cgroup
        self._peak = max(self._peak, memory)
        cpu = self._family.used[0] if cpu is None else cpu - self._cpu_before
        self._values = {"t": at, "cpu": cpu, "mem": memory, "peak": self._peak}
        if self._family.counts_bytes:
            self._values.update(read=int(self._family.used[1]), written=int(self._family.used[2]))
        if self._ports:
            received, sent = (now - was for now, was in zip(self._network(), self._network_before))
            self._values.update(received=received, sent=sent)
        self._readings.append([gpu.look() for gpu in self.gpus])
        for number, (_, _, watts, _, meter) in enumerate(self._readings[-1]):
            if meter is not None:
                self._joules[number] = meter - self._meters.setdefault(number, meter)
            elif watts is not None and self._at is not None:
                self._joules[number] += watts * (at - self._at)
        self._at = at

    def line(self) -> "dict[str, object]":
        """Return the sample of the last look; GPUs were as busy as they were on average since the last line."""
        rows = []
        for number, (_, memory, watts, celsius, _) in enumerate(self._readings[-1]):
            busy = [each[number][0] or 0.0 for each in self._readings if each[number][0] is not None]
            joules = None if watts is None and number not in self._meters else int(self._joules[number])
            rows.append([sum(busy) / len(busy) if busy else None, memory, watts, celsius, joules])
        if rows:
            self._values["gpu"] = rows
        self._readings = []
        return self._values

    def _network(self) -> "list[int]":
        return [sum((counters.number(port[way]) or 0) * unit for port, unit in self._ports) for way in (0, 1)]


def pace(age: float) -> float:
    """Return the seconds between two lines of a job of that age: 2,500 lines in a week."""
    return min(300, max(1, min(5, age / 20), age / 100))


def record(
    usage: Usage,
    lines: Lines,
    wait: "Callable[[float], bool]",
    *,
    age: float = 0,
    clock: "Callable[[], float]" = time.monotonic,
    spent: "Callable[[], float]" = time.process_time,
) -> None:
    """Look every few seconds and write now and then, until ``wait(seconds)`` says that it is the end."""
    begin, due, ended = clock() - age, 0.0, False
    while True:
        at = clock() - begin
        usage.look(at)
        if ended or at >= due:
            lines.write(usage.line(), last=ended)
            due = at + pace(at)
        if ended:
            return
        ended = wait(max((spent() - START) / SHARE - at, min(5, due - at)))


def head(
    usage: Usage, cgroup: counters.Cgroup, env: "Mapping[str, str]", begun: float
) -> "dict[str, object]":
    """Return the line that stands above the samples of one start."""
    cpus = int(env.get("SLURM_CPUS_ON_NODE") or 0)
    if not cpus:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = int(env.get("SLURM_MEM_PER_NODE") or int(env.get("SLURM_MEM_PER_CPU") or 0) * cpus) * 2**20
    limits = [limit for limit in (cgroup.limit(), memory) if limit]
    gpus = [[gpu.uuid, gpu.name, gpu.memory] for gpu in usage.gpus]
    return {
        **{"node": env.get("SLURMD_NODENAME") or os.uname()[1], "t": begun, "cpus": cpus},
        **{"memory": min(limits, default=None), "from": cgroup.source, "gpus": gpus},
    }


def visible_gpus(env: "Mapping[str, str]") -> "list[Any]":
    """Return the job's GPUs; nothing is loaded where there is no sign of any."""
    asked = any(env.get(name) for name in ("SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"))
    devices = any(os.path.exists("/dev/" + name) for name in ("nvidiactl", "dxg", "kfd"))
    if not asked and ("SLURM_JOB_ID" in env or not devices):
        return []
    import gpus  # noqa: PLC0415 - only here, see above

    found = gpus.find(env)  # type: list[Any]
    return found


def ended_after(seconds: float) -> bool:
    """Wait, and say whether standard input has ended."""
    return bool(select.select([0], [], [], seconds)[0])


def main() -> None:
    """Sample, and tell in the file why not."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)  # they are meant for the payload, which may go on for a while
    file, root = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    begun = float(sys.argv[3]) if len(sys.argv) > 3 else time.time()
    lines, env = Lines(file), os.environ
    try:
        variables = ["DAGSTER_SLURM_RUN_DIR=" + os.path.dirname(os.path.dirname(file))]
        if "SLURM_JOB_ID" in env:
            variables = [
                name + "=" + env[name] for name in ("SLURM_JOB_ID", "SLURMD_NODENAME") if name in env
            ]
        system = counters.Linux() if os.path.isdir("/proc") else counters.Ps()
        family = counters.Family(system, root, [os.fsencode(variable) for variable in variables])
        own = counters.read("/proc/self/cgroup").decode() if os.path.exists("/proc/self/cgroup") else ""
        cgroup = counters.Cgroup(env.get("SLURM_JOB_ID", ""), own)
        usage = Usage(family, cgroup, visible_gpus(env), first="SLURM_ARRAY_TASK_ID" not in env)
        lines.write(head(usage, cgroup, env, begun))
        record(usage, lines, ended_after, age=time.time() - begun)
    except Exception as error:  # noqa: BLE001 - it is told, where it belongs, and must not reach the payload
        lines.write({"error": "%s: %s" % (type(error).__name__, error)}, last=True)
    os._exit(0)  # at once: the job waits for it


if __name__ == "__main__":
    main()
