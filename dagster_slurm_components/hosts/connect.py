"""From a host's spec to the one shared host behind it."""

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

from dagster_slurm_components.errors import HostError, HostRefusedError
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.agent.client import AgentDialer, described
from dagster_slurm_components.hosts.attempts import NotedDialer
from dagster_slurm_components.hosts.base import Host, Pipe, Reply
from dagster_slurm_components.hosts.channel import Dialer
from dagster_slurm_components.hosts.local import InProcessHost
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.spec.hosts import HostSpec, LocalHost, SshHost

_lock = threading.Lock()
_hosts: dict[tuple[int, str], Host] = {}
_local = InProcessHost()


def connect(spec: HostSpec) -> Host:
    """Return the host of this spec: one per spec and process, shared by all threads.

    Nothing is dialed before the first call.
    """
    if isinstance(spec, LocalHost):
        return _local
    if not isinstance(spec, SshHost):
        raise TypeError(f"no way is known to connect to a host of type {spec.type!r}")
    # By process: a forked child must not talk on its parent's connection.
    key = (os.getpid(), described(spec))
    with _lock:
        if key not in _hosts:
            _hosts[key] = _remote(spec)
        return _hosts[key]


class ProfileHost:
    """A host as one of the profiles with it sees it: what its errors say to type names the profile."""

    def __init__(self, host: Host, profile: str) -> None:
        self._host = host
        self._profile = profile
        self.name = host.name
        self.close = host.close

    def open(self) -> Pipe:
        """Return a pipe of the caller's own; see ``Host.open``."""
        try:
            return self._host.open()
        except HostError as error:
            raise error.of_profile(self._profile) from error.__cause__

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation; see ``Host.call``."""
        try:
            return self._host.call(op, params, blob, timeout=timeout)
        except HostError as error:
            raise error.of_profile(self._profile) from error.__cause__


def _remote(spec: SshHost) -> RemoteHost:
    if spec.agent and place.wanted():
        # One channel: the agent itself shares large transfers among those of its connection.
        return RemoteHost(AgentDialer(spec), interval=AgentDialer.INTERVAL, channels=1)
    dialer: Dialer = SshDialer(spec)
    # A container may have no place to write to; with one process a container there is nobody to tell, either.
    with contextlib.suppress(HostRefusedError):
        dialer = NotedDialer(dialer, place.folder(), interval=spec.reconnect_interval)
    return RemoteHost(dialer, interval=spec.reconnect_interval)
