"""Where the dashboard of a job's Ray cluster is seen from the user's own machine.

It listens on the loopback address of the job's first node, so it takes ``dg-slurm forward`` to get there. The launcher
writes ``ray_dashboard=NODE PORT`` to the job's status once the cluster is up.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dagster_slurm_components.jobs.into import ready_command
from dagster_slurm_components.jobs.model import JobHandle
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.spec.hosts import LocalHost
from dagster_slurm_components.spec.profiles import LoadedProfile

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


def dashboard(status: StatusRecord | None, handle: JobHandle, loaded: LoadedProfile) -> Dashboard | None:
    """Return the way to the dashboard of a running job, or nothing where it has none (yet)."""
    node, _, port = ((status.get("ray_dashboard") if status else None) or "").partition(" ")
    if not node or not port.isdigit():
        return None
    if isinstance(loaded.profile.host, LocalHost) and loaded.profile.scheduler == "process":
        return Dashboard(f"http://127.0.0.1:{port}")
    tunnel = ready_command("forward", handle, loaded.name, f"{NEAR_PORT}:{port}")
    return Dashboard(f"http://127.0.0.1:{NEAR_PORT}", tunnel)


class DashboardNotice:
    """Tells of a job's dashboard as soon as there is one, and of the next one after a requeue."""

    def __init__(self, loaded: LoadedProfile, handle: JobHandle, tell: Callable[[str], None]) -> None:
        self._loaded, self._handle, self._tell = loaded, handle, tell
        self._last: Dashboard | None = None

    def look(self, status: StatusRecord | None) -> None:
        """Look at the job's newest status."""
        way = dashboard(status, self._handle, self._loaded)
        if way is not None and way != self._last:
            self._tell(way.in_words(self._handle.run_dir))
            self._last = way
