"""One node of a Ray cluster: `ray start`, with what the job has on this node and nothing else.

Usage: ray_node.py --head ADDRESS:PORT [--cpus N] [--object-store-memory BYTES] [--start-arg ARG]...
       [--start-timeout SECONDS] [--host-suffix SUFFIX] [--grace SECONDS] --

As a program it runs a worker, until its standard input ends: srun hands on the end of the launcher's.

Runs inside the job on Python 3.6 or newer, with the standard library only.
"""

import argparse
import os
import re
import shutil
import socket
import sys
import tempfile
import time

import command_line
import nodes
import ports
import processes
import records

# A Unix socket's path has at most 107 characters, and Ray's longest one below its folder is
# /session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store
LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
LOG_BYTES = 2**20


def options_parser():
    """Return the parser of the options that the head and the workers have in common."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--object-store-memory", type=int)
    parser.add_argument("--start-arg", action="append", default=[])
    parser.add_argument("--start-timeout", type=float, default=180)
    parser.add_argument("--host-suffix", default="")
    parser.add_argument("--grace", type=float, default=15)
    return parser


def common_options(options):
    """Return the same options as a command line, to pass them on to the workers."""
    words = ["--start-timeout=%g" % options.start_timeout, "--host-suffix=" + options.host_suffix]
    words += ["--grace=%g" % options.grace]
    if options.object_store_memory:
        words.append("--object-store-memory=%d" % options.object_store_memory)
    return words + ["--start-arg=" + argument for argument in options.start_arg]


def make_temp_folder():
    """Make Ray's folder on this node: local, for it holds sockets and memory maps, and with a short name."""
    prefix = "dsr-%s-" % os.environ.get("SLURM_JOB_ID", os.getpid())
    for parent in (os.environ.get("SLURM_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp"):
        if parent and os.access(parent, os.W_OK) and len(parent) + 1 + len(prefix) + 8 <= LONGEST_FOLDER:
            return tempfile.mkdtemp(prefix=prefix, dir=parent)
    raise OSError("no folder for Ray's sockets: neither TMPDIR nor /tmp can be written and is short enough")


def keep_logs(temp):
    """Copy the end of each of Ray's logs to the run directory, before they go with the folder."""
    source = os.path.join(temp, "session_latest", "logs")
    target = os.path.join(records.folder(), "ray-" + records.own_node())
    if not os.path.isdir(source):
        return
    os.makedirs(target, exist_ok=True)
    for name in sorted(os.listdir(source))[:200]:
        path = os.path.join(source, name)
        if os.path.isfile(path):
            with open(path, "rb") as log, open(os.path.join(target, name), "wb") as copy:
                log.seek(max(0, os.path.getsize(path) - LOG_BYTES))
                copy.write(log.read())


def memory(number):
    """Return the bytes of memory that the job has on its node of that number; None if it has no limit."""
    if os.environ.get("SLURM_MEM_PER_NODE", "0") != "0":
        return int(os.environ["SLURM_MEM_PER_NODE"]) * 2**20
    if os.environ.get("SLURM_MEM_PER_CPU", "0") != "0":
        return int(os.environ["SLURM_MEM_PER_CPU"]) * 2**20 * nodes.own_cpus(number)
    return None


def share(options, number):
    """Return `ray start` options that say what the job has here; without Slurm, Ray sees for itself."""
    words = ["--num-cpus=%d" % (options.cpus or nodes.own_cpus(number))]
    if os.environ.get("SLURM_JOB_ID"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", os.environ.get("ROCR_VISIBLE_DEVICES", ""))
        gpus = os.environ.get("SLURM_GPUS_ON_NODE") or len([gpu for gpu in visible.split(",") if gpu])
        words.append("--num-gpus=%s" % gpus)
    total = memory(number)
    store = options.object_store_memory or (total and max(total * 3 // 10, 80 * 2**20))
    if store:
        words.append("--object-store-memory=%d" % store)
    if total and total > store:
        words.append("--memory=%d" % (total - store))
    return words


def environment():
    """Return the environment of Ray's own processes: they, and the tasks they run, don't speak to Dagster."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_PIPES_")}


class RayNode:
    """`ray start` on this node, its ports and its folder."""

    def __init__(self, family, options, number):
        self._family = family
        self._options = options
        self._number = number
        self.address = nodes.own_address(options.host_suffix)
        self.temp = make_temp_folder()
        self._lock, self._port = ports.claim(int(os.environ.get("SLURM_JOB_ID") or os.getpid()) + number)
        self.log = os.path.join(records.folder(), "ray-%s.log" % records.own_node())
        self.dashboard_port = self._port + 1

    @property
    def endpoint(self):
        """Where the cluster's head listens, if this is the head."""
        return nodes.endpoint(self.address, self._port)

    def start(self, head=None, dashboard=True):
        """Start Ray as the head, or as a worker of the head at ``head``."""
        argv = [os.environ["DAGSTER_SLURM_PYTHON"], "-m", "ray.scripts.scripts", "start", "--block"]
        argv += ["--disable-usage-stats", "--log-style=record", "--log-color=false"]
        argv += ["--node-ip-address=" + self.address, "--node-name=" + records.own_node()]
        argv += ["--temp-dir=" + self.temp]
        if head is None:
            argv += ["--head", "--port=%d" % self._port, "--ray-client-server-port=%d" % (self._port + 2)]
            argv += ["--dashboard-host=127.0.0.1", "--dashboard-port=%d" % self.dashboard_port]
            if not dashboard:
                argv.append("--include-dashboard=false")
        else:
            argv.append("--address=" + head)
        # Those whose default is one fixed number, or is chosen long before it is used; what is not named here
        # gets a port from the kernel, which can't clash.
        named = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        for at, name in enumerate(named + ("runtime-env-agent-port",), start=self._port + 3):
            argv.append("--%s=%d" % (name, at))
        argv += share(self._options, self._number) + self._options.start_arg
        with open(self.log, "ab") as log:
            self._family.start("ray", argv, env=environment(), stdout=log, stderr=log)

    def report_failure(self, who, code):
        """Tell and record that Ray ended though nobody had asked it to; return the exit code.

        `ray start` itself ends with 1, or even 0; its log says which of its processes ended, and how.
        """
        ends = re.findall(r"(\S+) \[exit code=(-?\d+)\]", records.tail(self.log, 1000))
        if ends:
            code = int(ends[0][1])
            code = 128 - code if code < 0 else code
        code = code or 1
        what = "Ray's process %s" % ends[0][0] if ends else "`ray start`"
        records.record(who, code)
        records.say("%s on %s %s" % (what, records.own_node(), records.in_words(code)))
        return code

    def close(self, failed):
        """End Ray on this node and remove its folder.

        It is killed: nothing of it is needed any more, and it would take seconds to drain itself (2.60).
        """
        self._family.kill()
        if failed:
            keep_logs(self.temp)
        shutil.rmtree(self.temp, ignore_errors=True)
        self._lock.close()


def wait_for_port(endpoint, timeout):
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


def attend(family):
    """Wait for the end of Ray, of the launcher, or for a signal; return Ray's exit code if it ended by itself."""
    while True:
        event = family.wait(watch=0)
        if isinstance(event, processes.Ended):
            return event.code
        if isinstance(event, processes.Closed) or event.signal in processes.STOP:
            return None


def main():
    """Run a worker; its exit code is 0 unless Ray ended by itself."""
    parser = options_parser()
    parser.add_argument("--head", required=True)
    options, _ = command_line.split(parser)
    family = processes.Family()
    node = RayNode(family, options, int(os.environ["SLURM_NODEID"]) + 1)
    code = None
    try:
        if wait_for_port(options.head, options.start_timeout):
            node.start(head=options.head)
            code = attend(family)
        if code is not None:
            code = node.report_failure("worker", code)
    finally:
        node.close(failed=code is not None)
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
