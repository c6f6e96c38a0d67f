"""What a job's processes, its cgroup and the node's networks have used so far. Runs on Python 3.6.

Under Slurm memory and CPU are those of the job's cgroup, if it has one. Else they are sums over its processes: who
descends from its root, once did, or was started with its variables (ranks of srun, what has detached itself).
Bytes read and written always are such sums: cgroups leave out network file systems, and Slurm counts none in them.
"""

import os
import re


def read(path: str, most: int = 4096) -> bytes:
    """Return the beginning of a file."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, most)
    finally:
        os.close(file)


def number(path: str) -> "int | None":
    """Return the number in a file, if there is one."""
    try:
        return int(read(path))
    except (OSError, ValueError):
        return None


class Process:
    """One process at a moment; ``used`` is CPU seconds, bytes read and written, with children it has waited for."""

    __slots__ = ("image", "memory", "parent", "start", "used", "waited")

    def __init__(self, start: bytes, parent: int, cpu: float, waited: float = 0, image: bytes = b"") -> None:
        self.start, self.parent, self.waited, self.image, self.memory = start, parent, waited, image, 0
        self.used = (cpu + waited, 0, 0)


class Linux:
    """The processes of this machine, by /proc."""

    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")

    def all(self) -> "dict[int, Process]":
        """Return them by process id."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                # The program's name, in parentheses, may hold anything.
                fields = read("/proc/" + pid + "/stat").rpartition(b")")[2].split()
            except OSError:
                continue
            cpu, waited = ((int(fields[at]) + int(fields[at + 1])) / self.tick for at in (11, 13))
            # The address of the stack is random: whoever has the same was forked, and shares memory.
            found[int(pid)] = Process(fields[19], int(fields[1]), cpu, waited, fields[25])
        return found

    def complete(self, pid: int, process: Process, forked: bool) -> None:
        """Add its bytes, and its memory: without what others have too or, if it was forked, with its share of that."""
        try:
            _, resident, shared = read("/proc/%d/statm" % pid).split()[:3]
            process.memory = (int(resident) - int(shared)) * self.page
            if forked and os.path.exists("/proc/%d/smaps_rollup" % pid):
                # Slow, for the kernel looks at each page.
                shares = read("/proc/%d/smaps_rollup" % pid)
                share = re.search(rb"\nPss_Anon: *(\d+)", shares) or re.search(rb"\nPss: *(\d+)", shares)
                process.memory = int(share.group(1)) * 1024 if share else process.memory
            io = dict(line.split(b": ") for line in read("/proc/%d/io" % pid).splitlines())
        except OSError:  # it has ended, or is another user's
            return
        process.used = (process.used[0], int(io[b"read_bytes"]), int(io[b"write_bytes"]))

    def has(self, pid: int, variables: "list[bytes]") -> bool:
        """Whether it was started with these environment variables."""
        try:
            environment = b"\0" + read("/proc/%d/environ" % pid, 2**17)
        except OSError:
            return False
        return all(b"\0" + variable + b"\0" in environment for variable in variables)


class Ps:
    """The same where there is no /proc, as on macOS; of bytes and environments nothing is known there."""

    def all(self) -> "dict[int, Process]":
        """Return them by process id."""
        import subprocess  # noqa: PLC0415 - it is large

        found = {}
        for line in subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,rss=,time="]).splitlines():
            pid, parent, kibibytes, cpu = line.decode().replace(",", ".").split()
            days, _, clock = cpu.rpartition("-")
            seconds = int(days or 0) * 86400.0
            for place, part in enumerate(reversed(clock.split(":"))):
                seconds += float(part) * 60**place
            found[int(pid)] = Process(b"", int(parent), seconds)
            found[int(pid)].memory = int(kibibytes) * 1024
        return found

    def complete(self, pid: int, process: Process, forked: bool) -> None:
        """Nothing is to be added."""

    def has(self, pid: int, variables: "list[bytes]") -> bool:
        """Nobody can say."""
        return False


class Family:
    """The processes of the job; ``used`` is what they have used with all that have ended."""

    def __init__(self, system: "Linux | Ps", root: int, variables: "list[bytes]") -> None:
        self._system, self._root, self._variables = system, root, variables
        self._members = {}  # type: dict[int, Process]
        self._strangers = {}  # type: dict[int, bytes]
        self._lost = [0.0, 0.0, 0.0]
        self.counts_bytes = isinstance(system, Linux)
        self.used = [0.0, 0.0, 0.0]

    def look(self) -> int:
        """Return the bytes of memory in use, and renew ``used``."""
        everything = self._system.all()
        before, now = self._members, {pid: everything[pid] for pid in self._find(everything)}
        images = {}  # type: dict[bytes, int]
        for process in now.values():
            images[process.image] = images.get(process.image, 0) + 1
        for pid, process in now.items():
            self._system.complete(pid, process, forked=images[process.image] > 1)
        stayed = [
            (old, now[pid]) for pid, old in before.items() if pid in now and now[pid].start == old.start
        ]
        gone = {id(old) for old in before.values()} - {id(old) for old, _ in stayed}
        for at in range(3):
            owed = sum(old.used[at] for old in before.values() if id(old) in gone)
            # Whoever has waited for one that is gone counts what that had used.
            for old, new in stayed if owed else ():
                owed -= new.used[at] - old.used[at] if at else new.waited - old.waited
            self._lost[at] += max(0, owed)
            total = self._lost[at] + sum(process.used[at] for process in now.values())
            self.used[at] = max(self.used[at], total)
        self._members = now
        return sum(process.memory for process in now.values())

    def _find(self, everything: "dict[int, Process]") -> "set[int]":
        children, queue = {}, [self._root]  # type: dict[int, list[int]], list[int]
        for pid, process in everything.items():
            children.setdefault(process.parent, []).append(pid)
            if pid in self._members and self._members[pid].start == process.start:
                queue.append(pid)
            elif self._variables and self._strangers.get(pid) != process.start:
                self._strangers[pid] = process.start
                if self._system.has(pid, self._variables):
                    queue.append(pid)
        self._strangers = {pid: start for pid, start in self._strangers.items() if pid in everything}
        found = set()  # type: set[int]
        for pid in queue:  # grows while it is read
            if pid in everything and pid not in found and pid != os.getpid():
                found.add(pid)
                queue += children.get(pid, ())
        return found


class Cgroup:
    """The cgroup that Slurm gave the job; what is not counted there is None."""

    def __init__(self, job: str, own: str, root: str = "/sys/fs/cgroup") -> None:
        self.source = "processes"
        self._memory = self._cpu = "/nowhere"
        self._names = ("memory.current", "memory.max", rb"^inactive_file (\d+)")
        for _, controllers, path in (line.split(":", 2) for line in own.splitlines()):
            match = re.match(r".*?/job_%s(?=/|$)" % job, path) if job else None
            folder = match.group() if match else "/nowhere"
            if match and not controllers:
                self._cpu = root + folder
            elif "cpuacct" in controllers.split(","):
                self._cpu = root + "/cpuacct" + folder
            if os.path.exists(root + folder + "/memory.current"):
                self.source, self._memory = "cgroup2", root + folder
            elif controllers == "memory" and os.path.isdir(root + "/memory" + folder):
                self.source, self._memory = "cgroup1", root + "/memory" + folder
                self._names = (
                    *("memory.usage_in_bytes", "memory.limit_in_bytes"),
                    rb"^total_inactive_file (\d+)",
                )

    def memory(self) -> "int | None":
        """Return the working set: without files that are cached and were not looked at for a while."""
        used = number(os.path.join(self._memory, self._names[0]))
        if used is None:
            return None
        idle = re.search(self._names[2], read(self._memory + "/memory.stat", 2**14), re.M)
        return used - min(used, int(idle.group(1)) if idle else 0)

    def limit(self) -> "int | None":
        """Return how much memory the job may use here."""
        limit = number(os.path.join(self._memory, self._names[1]))
        return None if limit is None or limit >= 2**60 else limit  # version 1 writes a number for none

    def cpu(self) -> "float | None":
        """Return the seconds of CPU time."""
        used = number(self._cpu + "/cpuacct.usage")
        if used is not None:
            return used / 1e9
        try:
            found = re.search(rb"^usage_usec (\d+)", read(self._cpu + "/cpu.stat"), re.M)
        except OSError:
            return None
        return int(found.group(1)) / 1e6 if found else None


def ports(root: str = "/sys/class") -> "list[tuple[list[str], int]]":
    """Return the counters of received and sent bytes of the node's networks, with their unit."""
    found = []

    def names(folder: str) -> "list[str]":
        return os.listdir(folder) if os.path.isdir(folder) else []

    for device in names(root + "/infiniband"):
        for port in names("%s/infiniband/%s/ports" % (root, device)):
            counters = "%s/infiniband/%s/ports/%s/counters/port_" % (root, device, port)
            found.append(([counters + "rcv_data", counters + "xmit_data"], 4))
    nets = [
        name
        for name in names(root + "/net")
        if name != "lo" and number("%s/net/%s/type" % (root, name)) != 32
    ]
    real = [name for name in nets if os.path.exists("%s/net/%s/device" % (root, name))]
    for name in real or nets:  # a bridge would count what its members count; a container has nothing real
        found.append((["%s/net/%s/statistics/%s_bytes" % (root, name, way) for way in ("rx", "tx")], 1))
    return found
