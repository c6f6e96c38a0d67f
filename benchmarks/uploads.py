"""What several channels over the one connection gain for a large upload, on loopback and over lines with a delay.

300 MB through the cluster's real sshd into the content store: by one channel, and by as many as a host opens. OpenSSH
allows 2 MiB under way on a channel, so a delay costs one channel its speed and several of them less.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _lab import Lab, lab

from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.environments.store import Store
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.spec.hosts import SshHost

SIZE = 300_000_000
DELAYS = (0.0, 0.025, 0.075)
"""Seconds that each byte takes in one direction."""
CHANNELS = (1, 2, 4)
LIMITS = {"gain_at_150_ms": 2.0}


@contextmanager
def line(setting: Lab, delay: float) -> Iterator[int]:
    """Yield a port that leads to the cluster's sshd over a line with this delay."""
    if not delay:
        yield setting.cluster.ssh_port
        return
    program = Path(__file__).with_name("_slow_line.py")
    argv = [sys.executable, str(program), str(setting.cluster.ssh_port), str(delay)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


def host(setting: Lab, port: int, channels: int) -> RemoteHost:
    """Return the cluster's login node as reached on this port, by so many channels."""
    cluster = setting.cluster
    keys = Path(cluster.known_hosts_file).read_text().replace(f":{cluster.ssh_port} ", f":{port} ")
    known = setting.project / f"known_hosts-{port}"
    known.write_text(keys)
    spec = SshHost(
        hostname="127.0.0.1",
        port=port,
        user=cluster.user,
        key_file=str(cluster.key_file),
        known_hosts_file=str(known),
    )
    return RemoteHost(SshDialer(spec), channels=channels)


def seconds(setting: Lab, port: int, channels: int, artifact: Artifact) -> float:
    """Return how long the upload takes on a standing connection."""
    there = host(setting, port, channels)
    workdir = setting.project / "work"
    try:
        satellite = Satellite(there)
        satellite.hello()
        began = time.perf_counter()
        sent = Store(satellite, str(workdir)).upload([artifact])
        taken = time.perf_counter() - began
        assert sent == SIZE
        return taken
    finally:
        there.close()
        shutil.rmtree(workdir, ignore_errors=True)


def main() -> None:
    with lab() as setting:
        path = setting.project / "large"
        path.write_bytes(os.urandom(SIZE))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        artifact = Artifact(path.name, digest, SIZE, "archive", path=str(path))
        speeds: dict[str, dict[int, float]] = {}
        for delay in DELAYS:
            with line(setting, delay) as port:
                found = {each: SIZE / 1e6 / seconds(setting, port, each, artifact) for each in CHANNELS}
            speeds[f"{delay * 2000:.0f}"] = {each: round(speed, 1) for each, speed in found.items()}
    gain = round(speeds["150"][4] / speeds["150"][1], 2)
    met = gain >= LIMITS["gain_at_150_ms"]
    result = {"MB_per_s_by_round_trip_ms_and_channels": speeds, "gain_at_150_ms": gain}
    print(json.dumps({"benchmark": "uploads", **result, "limits": LIMITS, "met": met}))


if __name__ == "__main__":
    main()
