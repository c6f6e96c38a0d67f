"""The `ray` launcher: a cluster of the job's own, and the payload once, on its head.

Usage: launch_ray.py [--no-dashboard] [OPTIONS OF ray_node.py] -- PAYLOAD...

The head runs here, on the job's first node; one task on each other node runs ray_node.py. Whatever ends first
decides: the payload's end is the job's, the end of Ray on any node is a failure.
"""

import argparse
import contextlib
import os
import resource
import secrets
import time
from typing import List, Optional

import command_line
import nodes
import processes
import ray_node
import records

NOT_STARTED = 1


def raise_file_limit() -> None:
    """Allow as many open files as we may: Ray needs many, and the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS reports a limit that can't be set
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_token() -> None:
    """Let nobody else on these nodes use the cluster: Ray 2.52 and newer ask for a token, older ones ignore it."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    path = str(records.run_directory() / "ray.token")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=path)


class Cluster:
    """The head, the workers and the payload of one job."""

    def __init__(self, options: argparse.Namespace, payload: List[str]) -> None:
        self.options = options
        self.payload = payload
        self.family = processes.Family()
        self.names = nodes.names()
        self.head = ray_node.RayNode(self.family, options, 0)
        self._lifeline: Optional[int] = None
        self._kill_at: Optional[float] = None

    def start(self) -> None:
        """Start the head and the workers side by side, and whoever tells us that all are there."""
        self.head.start()
        if len(self.names) > 1:
            self._start_workers()
        # With the payload's own packages, unlike the other programs of this folder: it needs Ray.
        wait = [*command_line.payloads_python(self.options), command_line.program("ray_wait.py")[-1]]
        wait += [self.head.endpoint, f"{self.options.start_timeout:g}", *self.names]
        self.family.start("wait", wait, env=command_line.without_pipes())

    def _start_workers(self) -> None:
        others = len(self.names) - 1
        step = ["srun", f"--nodes={others}", f"--ntasks={others}", "--nodelist=" + ",".join(self.names[1:])]
        worker = [*command_line.program("ray_node.py"), *command_line.own_words()]
        worker += ["--head=" + self.head.endpoint, "--"]
        # srun passes its standard input on to all tasks: its end tells the workers to end, whether we close it
        # or die.
        reader, self._lifeline = os.pipe()
        argv = step + nodes.srun_options() + worker
        self.family.start("workers", argv, env=nodes.step_environment(), stdin=reader)
        os.close(reader)

    def start_payload(self) -> Optional[int]:
        """Start the payload; return an exit code if it can't be."""
        if not self.options.no_dashboard:
            records.note(ray_dashboard=f"{records.own_node()} {self.head.dashboard_port}")
        env = dict(command_line.of_payload(), RAY_ADDRESS=self.head.endpoint)
        try:
            self.family.start("payload", self.payload, env=env)
        except OSError as exc:
            return records.say_not_started("the payload", exc)
        return None

    def run(self) -> int:
        """Return the exit code: the payload's, or that of what failed before it."""
        self.start()
        while True:
            event = self.family.wait(self._kill_at)
            if event is None:
                return 128 + processes.STOP[0]
            code = self._on_end(event.ended, event.code) if event.ended else self._on_signal(event.signal)
            if code is not None:
                return code

    def _on_signal(self, number: int) -> Optional[int]:
        self.family.signal("payload", number, group=True)
        if number in processes.STOP:
            self._kill_at = self._kill_at or time.monotonic() + self.options.grace
            if not self.family.running("payload"):
                return 128 + number
        return None

    def _on_end(self, name: str, code: int) -> Optional[int]:
        if name == "payload" or (self._kill_at is None and processes.is_stopping(self.family, code)):
            return code
        if name == "wait":
            if code == 0:
                return self.start_payload()
            records.say("the Ray cluster did not come up; the logs are in ranks/")
            return NOT_STARTED
        if self._kill_at is not None:  # Slurm signals Ray's processes, too; the payload still has its time
            return None
        if name == "ray":
            return None if self.head.start_again() else self.head.report_failure("head", code)
        return code or NOT_STARTED

    def close(self, failed: bool) -> None:
        """End everything, here and on the other nodes."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            deadline = time.monotonic() + self.options.grace
            while self.family.running("workers") and time.monotonic() < deadline:
                self.family.wait(deadline)
        self.head.close(failed)


def main() -> int:
    """Run the payload in a cluster and return the job's exit code."""
    options, payload = command_line.split(**ray_node.OPTIONS)
    records.prepare()
    raise_file_limit()
    require_token()
    cluster = Cluster(options, payload)
    code = NOT_STARTED
    try:
        code = cluster.run()
    finally:
        cluster.close(failed=code != 0)
    return records.conclude(code)


if __name__ == "__main__":
    command_line.finish(main)
