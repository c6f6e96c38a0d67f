"""One node of a Ray cluster: `ray start`, with what the job has on this node and nothing else.

Usage: ray_node.py --head ADDRESS:PORT [--cpus N] [--object-store-memory BYTES] [--start-arg ARG]...
       [--start-timeout SECONDS] [--host-suffix SUFFIX] [--grace SECONDS] [--inside WORD]... [--python PYTHON] --

As a program it runs a worker, until its standard input ends: srun hands on the end of the launcher's.
"""

import argparse
import contextlib
import fcntl
import glob
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import command_line
import nodes
import ports
import processes
import records
import sampling

# A Unix socket's path has at most 107 characters, and Ray's longest one below its folder is
# /session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store
LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
OURS = "dsr-"
LOG_BYTES = 2**20
# What `ray start` says of a head or of itself that is slow to start; each waits for a fixed time (30 s, 40 s).
TOO_BUSY = ("The current node timed out during startup", "No node info found for head node in GCS")
# Ray refuses a smaller object store than 75 MiB.
SMALLEST_STORE = 80 * 2**20
OPTIONS: Dict[str, Any] = {
    **{"cpus": 0, "object_store_memory": 0, "start_arg": [], "start_timeout": 180.0},
    **{"host_suffix": "", "grace": 15.0, "no_dashboard": False, "inside": [], "python": ""},
}
"""The options of the head and the workers, of which each takes what concerns it."""


def make_temp_folder() -> str:
    """Make Ray's folder on this node: local, for it holds sockets and memory maps, and with a short name."""
    prefix = f"{OURS}{os.environ.get('SLURM_JOB_ID', os.getpid())}-"
    for parent in (os.environ.get("SLURM_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp"):  # noqa: S108
        if parent and os.access(parent, os.W_OK) and len(parent) + 1 + len(prefix) + 8 <= LONGEST_FOLDER:
            sweep(parent)
            temp = tempfile.mkdtemp(prefix=prefix, dir=parent)
            # Held until this process ends, and inherited by none of its children.
            fcntl.flock(os.open(temp, os.O_RDONLY), fcntl.LOCK_EX)
            return temp
    raise OSError("no folder for Ray's sockets: neither TMPDIR nor /tmp can be written and is short enough")


def sweep(parent: str) -> None:
    """Remove the folders of our jobs that were killed before they could do so: nobody holds their lock."""
    for path in glob.glob(os.path.join(glob.escape(parent), OURS + "*")):
        with contextlib.suppress(
            FileNotFoundError, BlockingIOError
        ):  # another job removes it just now; its own runs
            facts = os.lstat(path)
            ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
            # A younger one may not be locked yet.
            if not ours or time.time() - facts.st_mtime < 60:
                continue
            folder = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(folder)


def keep_logs(temp: str) -> None:
    """Copy the end of each of Ray's logs to the run directory, before they go with the folder."""
    target = records.folder() / ("ray-" + records.own_node())
    for path in sorted(Path(temp, "session_latest", "logs").glob("*"))[:200]:
        if path.is_file():
            target.mkdir(exist_ok=True)
            with path.open("rb") as log, (target / path.name).open("wb") as copy:
                log.seek(max(0, path.stat().st_size - LOG_BYTES))
                copy.write(log.read())


def memory(number: int) -> Optional[int]:
    """Return the bytes of memory that the job has on its node of that number; None if it has no limit."""
    of_node, of_cpu = (int(os.environ.get(f"SLURM_MEM_PER_{each}") or 0) for each in ("NODE", "CPU"))
    return (of_node or of_cpu * nodes.own_cpus(number)) * 2**20 or None


def share(options: argparse.Namespace, number: int) -> List[str]:
    """Return `ray start` options that say what the job has here; without Slurm, Ray sees for itself."""
    words = [f"--num-cpus={options.cpus or nodes.own_cpus(number)}"]
    if os.environ.get("SLURM_JOB_ID"):
        # Ray refuses to have more than are visible to it.
        visible = nodes.visible_gpus()
        gpus = os.environ.get("SLURM_GPUS_ON_NODE") or 0 if visible is None else len(visible)
        words.append(f"--num-gpus={gpus}")
    total = memory(number)
    store = options.object_store_memory or (max(total * 3 // 10, SMALLEST_STORE) if total else None)
    if store:
        words.append(f"--object-store-memory={store}")
        if total and total > store:
            words.append(f"--memory={total - store}")
    return words


class RayNode:
    """`ray start` on this node, its ports and its folder."""

    def __init__(self, family: processes.Family, options: argparse.Namespace, number: int) -> None:
        self._family = family
        self._options = options
        self._number = number
        self.address = nodes.own_address(options.host_suffix)
        self._lock, self._port = ports.claim(int(os.environ.get("SLURM_JOB_ID") or os.getpid()) + number)
        self.temp = make_temp_folder()
        self.log = records.folder() / f"ray-{records.own_node()}.log"
        self.dashboard_port = self._port + 1
        self._argv: List[str] = []
        self._give_up_at = time.monotonic() + options.start_timeout

    @property
    def endpoint(self) -> str:
        """Where the cluster's head listens, if this is the head."""
        return nodes.endpoint(self.address, self._port)

    def start(self, head: Optional[str] = None) -> None:
        """Start Ray as the head, or as a worker of the head at ``head``."""
        argv = [*command_line.payloads_python(self._options), "-m", "ray.scripts.scripts", "start", "--block"]
        argv += ["--disable-usage-stats", "--log-style=record", "--log-color=false"]
        argv += ["--node-ip-address=" + self.address, "--node-name=" + records.own_node()]
        argv += ["--temp-dir=" + self.temp]
        if head is None:
            argv += ["--head", f"--port={self._port}", f"--ray-client-server-port={self._port + 2}"]
            argv += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard_port}"]
            if self._options.no_dashboard:
                argv.append("--include-dashboard=false")
        else:
            argv.append("--address=" + head)
        # Those whose default is one fixed number, or is chosen long before it is used; what is not named here
        # gets a port from the kernel, which can't clash.
        named = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        for at, name in enumerate((*named, "runtime-env-agent-port"), start=self._port + 3):
            argv.append(f"--{name}={at}")
        argv += share(self._options, self._number) + self._options.start_arg
        self._argv = argv
        self._run()

    def _run(self) -> None:
        with open(self.log, "ab") as log:
            self._family.start("ray", self._argv, env=command_line.without_pipes(), stdout=log, stderr=log)

    def start_again(self) -> bool:
        """Start Ray once more if it gave up waiting for itself or the head, and there is time; whether it was done.

        `ray start` waits 30 s for its own processes, and nothing can change that (2.60): too short on a busy
        machine, or where Ray is read from a slow file system.
        """
        last = records.tail(self.log, 1)
        if not any(words in last for words in TOO_BUSY) or time.monotonic() > self._give_up_at:
            return False
        records.say(f"`ray start` on {records.own_node()} is tried again: {last}")
        time.sleep(1)
        self._run()
        return True

    def report_failure(self, who: str, code: int) -> int:
        """Tell and record that Ray ended though nobody had asked it to; return the exit code.

        `ray start` itself ends with 1, or even 0; its log says which of its processes ended, and how.
        """
        ends = re.search(r"(\S+) \[exit code=(-?\d+)\]", records.tail(self.log, 1000))
        if ends:
            code = int(ends[2])
            code = 128 - code if code < 0 else code
        code = code or 1
        what = f"Ray's process {ends[1]}" if ends else "`ray start`"
        records.record(who, code)
        last = "" if ends else records.tail(self.log, 1)
        reason = f": {last}" if last else ""
        records.say(f"{what} on {records.own_node()} {records.in_words(code)}{reason}")
        return code

    def close(self, failed: bool) -> None:
        """End Ray on this node and remove its folder.

        It is killed: nothing of it is needed any more, and it would take seconds to drain itself (2.60).
        """
        self._family.kill()
        if failed:
            keep_logs(self.temp)
        shutil.rmtree(self.temp, ignore_errors=True)
        self._lock.close()


def wait_for_port(endpoint: str, timeout: float) -> bool:
    """Wait until something listens; whether it did."""
    host, _, port = endpoint.rpartition(":")
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            return True
        except OSError:
            time.sleep(0.2)
    return False


def attend(family: processes.Family) -> Optional[int]:
    """Wait for the end of Ray, of the launcher, or for a signal; return Ray's exit code if it ended by itself."""
    while True:
        event = family.wait(watch=0)
        if event.ended:
            return event.code
        if event.closed or event.signal in processes.STOP:
            return None


def main() -> int:
    """Run a worker; its exit code is 0 unless Ray ended by itself."""
    options, _ = command_line.split(head=str, **OPTIONS)
    family = processes.Family()
    number = int(os.environ["SLURM_NODEID"]) + 1
    node = RayNode(family, options, number)
    with sampling.sampled(family, number):
        return run(node, options, family)


def run(node: RayNode, options: argparse.Namespace, family: processes.Family) -> int:
    """Run a worker on its node; return the same."""
    code = None
    try:
        if wait_for_port(options.head, options.start_timeout):
            node.start(head=options.head)
            code = attend(family)
        while code is not None and node.start_again():
            code = attend(family)
        if code is not None:
            code = node.report_failure("worker", code)
    finally:
        node.close(failed=code is not None)
    return code or 0


if __name__ == "__main__":
    command_line.finish(main)
