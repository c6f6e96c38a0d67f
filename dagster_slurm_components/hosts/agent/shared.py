"""One host as the agent holds it: the connection, the login's secrets, and what is counted for ``dg-slurm status``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dagster_slurm_components.hosts.answers import INTERACTIVE, Answers, Prompt
from dagster_slurm_components.hosts.attempts import Attempts, NotedDialer
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.ssh import SshDialer
from dagster_slurm_components.spec.hosts import JumpHost, SshHost

_WATCHED = 120.0
"""Seconds after which a job whose files nobody reads counts as watched no more."""


class SharedHost:
    """The one connection to a host, for all clients of the agent.

    Args:
        spec: The host.
        folder: Where this machine's processes find out which hosts are waited for.
    """

    def __init__(self, spec: SshHost, folder: Path) -> None:
        self.answers = Answers(spec.secret_command)
        dialer = SshDialer(spec, self.answers, pauses=())
        noted = NotedDialer(dialer, Attempts(folder, dialer.name))
        self.host = RemoteHost(noted, interval=spec.reconnect_interval)
        hops: list[SshHost | JumpHost] = [*spec.jump, spec]
        self.interactive = any(step in INTERACTIVE for hop in hops for step in hop.login)
        self._lock = threading.Lock()
        self._calls = 0
        self._queries = 0
        self._contact: float | None = None
        self._watched: dict[str, float] = {}

    def call(self, op: str, params: Mapping[str, Any], blob: bytes, timeout: float) -> Reply:
        """Do one operation on the host; see ``Host.call``."""
        if op == "read":
            self._note_watched(params)
        reply = self.host.call(op, params, blob, timeout=timeout)
        with self._lock:
            self._calls += 1
            self._queries += bool(params.get("budget") and reply.result.get("fresh", True))
            self._contact = time.time()
        return reply

    def login(self, person: Callable[[Prompt], str]) -> bool:
        """Connect, asking a person; return whether a connection stood already."""
        if self.host.connected:
            return True
        with self.answers.asking(person):
            self.host.connect()
        return False

    def status(self) -> dict[str, Any]:
        """Return what is known of the host now."""
        failure = self.host.failure
        with self._lock:
            self._forget()
            return {
                "host": self.host.name,
                "connected": self.host.connected,
                "failure": str(failure) if failure else None,
                "calls": self._calls,
                "queries": self._queries,
                "jobs": len(self._watched),
                "last_contact": self._contact,
            }

    def _note_watched(self, params: Mapping[str, Any]) -> None:
        now = time.monotonic()
        found = [path for path, *_ in params.get("files", []) if path.endswith("/status")]
        with self._lock:
            self._watched.update(dict.fromkeys(found, now))

    def _forget(self) -> None:
        oldest = time.monotonic() - _WATCHED
        self._watched = {path: seen for path, seen in self._watched.items() if seen > oldest}
