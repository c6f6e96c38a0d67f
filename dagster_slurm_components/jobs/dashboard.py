"""Where the dashboard of a job's Ray cluster is seen from the user's own machine.

It listens on the loopback address of the job's first node, so it takes a tunnel to get there. The launcher writes
``ray_dashboard=NODE PORT`` to the job's status once the cluster is up.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.spec.hosts import JumpHost, SshHost
from dagster_slurm_components.spec.profile import Profile

NEAR_PORT = 8265
"""The tunnel's end on the user's machine: Ray's usual port, so that Ray's own tools find it."""


@dataclass(frozen=True)
class Dashboard:
    """What the browser opens, and the command that makes that work; empty where it works by itself."""

    address: str
    tunnel: str = ""

    @property
    def metadata(self) -> str:
        """What stands beside the materialization: what has to be typed, or else the address."""
        return self.tunnel or self.address

    def in_words(self, run_dir: str) -> str:
        """Say how to open it; the token that it asks for stays in its file."""
        first = f"run `{self.tunnel}` on your machine and open" if self.tunnel else "open"
        return f"Ray's dashboard: {first} {self.address} (it asks for the token in {run_dir}/ray.token)."


def dashboard(status: StatusRecord | None, profile: Profile) -> Dashboard | None:
    """Return the way to the dashboard of a running job, or nothing where it has none (yet)."""
    node, _, port = ((status.get("ray_dashboard") if status else None) or "").partition(" ")
    if not node or not port.isdigit():
        return None
    host = profile.host
    if not isinstance(host, SshHost) and profile.scheduler == "process":
        return Dashboard(f"http://127.0.0.1:{port}")
    tunnel = ["ssh", "-N", "-L", f"{NEAR_PORT}:127.0.0.1:{port}", *_way(host, profile.scheduler, node)]
    return Dashboard(f"http://127.0.0.1:{NEAR_PORT}", shlex.join(tunnel))


class DashboardNotice:
    """Tells of a job's dashboard as soon as there is one, and of the next one after a requeue."""

    def __init__(self, profile: Profile, run_dir: str, tell: Callable[[str], None]) -> None:
        self._profile, self._run_dir, self._tell = profile, run_dir, tell
        self._last: Dashboard | None = None

    def look(self, status: StatusRecord | None) -> None:
        """Look at the job's newest status."""
        way = dashboard(status, self._profile)
        if way is not None and way != self._last:
            self._tell(way.in_words(self._run_dir))
            self._last = way


def _way(host: object, scheduler: str, node: str) -> list[str]:
    """Return ssh's arguments that lead to the node: past the profile's jumps and its login node."""
    if not isinstance(host, SshHost):
        return [node]
    hops = [_hop(jump) for jump in host.jump]
    if scheduler == "slurm":
        return ["-J", ",".join([*hops, _hop(host)]), _at(host.user, node)]
    key = ["-i", host.key_file] if host.key_file else []
    jumps = ["-J", ",".join(hops)] if hops else []
    return [*key, *jumps, "-p", str(host.port), _at(host.user, host.hostname)]


def _hop(host: SshHost | JumpHost) -> str:
    """Write a host as ``ssh -J`` reads it; an IPv6 address needs brackets there."""
    name = f"[{host.hostname}]" if ":" in host.hostname else host.hostname
    return _at(host.user, f"{name}:{host.port}")


def _at(user: str | None, place: str) -> str:
    return f"{user}@{place}" if user else place
