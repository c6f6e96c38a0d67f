"""The way to a host over ssh: fabric connections, one for each hop, with strict host keys and prompt sockets."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fabric
import paramiko

from dagster_slurm_components.errors import HostRefusedError
from dagster_slurm_components.hosts import known_hosts
from dagster_slurm_components.hosts.answers import Answers
from dagster_slurm_components.hosts.known_hosts import Verdict
from dagster_slurm_components.hosts.ssh_login import Login
from dagster_slurm_components.spec.hosts import JumpHost, SshHost

_SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_DEAD_AFTER = 60_000
"""Milliseconds after which the kernel gives up a connection on which nothing is acknowledged."""

_TYPING = 120.0
"""Seconds for a person to answer; sshd's own LoginGraceTime is as long."""

_LOGGER = "dagster_slurm_components.paramiko"
if logging.getLogger(_LOGGER).level == logging.NOTSET:
    # paramiko logs each lost connection with a traceback; our errors say it once. Lower the level to see all.
    logging.getLogger(_LOGGER).setLevel(logging.CRITICAL + 1)


def connections(spec: SshHost, answers: Answers) -> list[Any]:
    """Return the unopened fabric connections to a host, the nearest hop first and the host itself last.

    What the spec leaves open comes from ``~/.ssh/config``, jump hosts included.

    Raises:
        LoginRequiredError: A hop asks for what only a person can answer; nothing was dialed.
    """
    config = fabric.Config()
    gateway = None
    for jump in spec.jump:
        gateway = _connection(jump, spec, config, gateway, answers)
    target = _connection(spec, spec, config, gateway, answers)
    route = [target]
    while isinstance(route[0].gateway, fabric.Connection):
        route.insert(0, route[0].gateway)
    for connection in route:
        _secure(connection, spec)
    hops: list[SshHost | JumpHost] = [*spec.jump, spec]
    for connection, hop in zip(reversed(route), reversed(hops), strict=False):
        answers.check(connection_name(connection), hop.login)
    return route


def open_socket(hostname: str, port: int, timeout: float) -> socket.socket:
    """Return a TCP connection that sends at once and notices a dead peer."""
    sock = socket.create_connection((hostname, port), timeout)
    # paramiko never sets it, and Nagle's algorithm then costs 40 ms a call.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER)
    return sock


def connection_name(connection: Any) -> str:
    """Return ``user@hostname:port``."""
    return f"{connection.user}@{connection.host}:{connection.port}"


def _connection(hop: SshHost | JumpHost, spec: SshHost, config: Any, gateway: Any, answers: Answers) -> Any:
    connection = fabric.Connection(
        hop.hostname,
        user=hop.user or spec.user,
        port=hop.port if "port" in hop.model_fields_set else None,
        gateway=gateway,
        config=config,
        connect_timeout=max(1, round(spec.connect_timeout)),
        forward_agent=False,
    )
    key_file = hop.key_file or spec.key_file
    connection.connect_kwargs = {"auth_strategy": _login(connection, key_file, hop.login, answers)}
    return connection


def _login(connection: Any, key_file: str | None, steps: Sequence[str], answers: Answers) -> Login:
    files = connection.ssh_config.get("identityfile", [])
    name = connection_name(connection)
    return Login(name, connection.user, key_file, files, steps=steps, answers=answers)


def _secure(connection: Any, spec: SshHost) -> None:
    # fabric accepts every host key (AutoAddPolicy) and reads no known_hosts; hops that it made itself from
    # ~/.ssh/config are no different.
    if "auth_strategy" not in connection.connect_kwargs:
        connection.connect_kwargs = {"auth_strategy": _login(connection, None, ["key"], Answers())}
    login: Login = connection.connect_kwargs["auth_strategy"]
    policy = HostKeys(connection, spec.known_hosts_file)
    connection.client = paramiko.SSHClient()
    connection.client.set_missing_host_key_policy(policy)
    connection.client.set_log_channel(_LOGGER)
    connection.connect_timeout = spec.connect_timeout
    connection.connect_kwargs.update(
        banner_timeout=spec.connect_timeout,
        auth_timeout=_TYPING if login.interactive else max(spec.connect_timeout, 30),
        channel_timeout=spec.connect_timeout,
        transport_factory=_transport_factory(policy.known_types()),
    )


def _transport_factory(known_types: set[str]) -> Callable[..., paramiko.Transport]:
    def make(*args: Any, **kwargs: Any) -> paramiko.Transport:
        transport = paramiko.Transport(*args, **kwargs)
        options = transport.get_security_options()
        # The host shall show a key of a kind that we can check.
        options.key_types = sorted(options.key_types, key=lambda kind: kind not in known_types)
        # paramiko prefers AES-GCM last, though it is the fastest by a third.
        options.ciphers = sorted(options.ciphers, key=lambda cipher: "gcm" not in cipher)
        return transport

    return make


class HostKeys(paramiko.MissingHostKeyPolicy):
    """Accepts a host key that the known_hosts files list, and nothing else.

    The client's own lists stay empty, so that paramiko asks here about every key.
    """

    def __init__(self, connection: Any, file: str | None) -> None:
        self._where = connection_name(connection)
        self._host, self._port = connection.host, int(connection.port)
        # As for OpenSSH, an alias stands without a port.
        self._name = connection.ssh_config.get("hostkeyalias") or known_hosts.host_name(
            self._host, self._port
        )
        configured = connection.ssh_config.get("userknownhostsfile")
        user_files = configured.split() if configured else _USER_KNOWN_HOSTS
        self._files = [Path(path).expanduser() for path in ([file] if file else user_files)]
        system_files = [] if file else [Path(path) for path in _SYSTEM_KNOWN_HOSTS]
        self._entries = [
            entry
            for path in (*self._files, *system_files)
            if path.is_file()
            for entry in known_hosts.parse(path.read_text(errors="replace"), str(path))
        ]

    def known_types(self) -> set[str]:
        """Return the kinds of keys that are listed for the host."""
        types = {entry.key_type for entry in known_hosts.about(self._entries, self._name)}
        return types | {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in types else types

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Raise HostRefusedError unless the key is listed."""
        verdict, entry = known_hosts.judge(self._entries, self._name, key.get_name(), key.asbytes())
        if verdict is Verdict.KNOWN:
            return
        shown = f"{key.get_name()} {known_hosts.fingerprint(key.asbytes())}"
        place = entry.place if entry else ""
        if verdict is Verdict.UNKNOWN:
            raise HostRefusedError(
                f"the host's key {shown} is not known for {self._name} in {self._files[0]}",
                where=self._where,
                hint="Compare the fingerprint with the one that the centre publishes, then add the key: "
                f"ssh-keyscan -p {self._port} {self._host} >> {self._files[0]}",
            )
        if verdict is Verdict.REVOKED:
            raise HostRefusedError(f"the host's key {shown} is revoked by {place}", where=self._where)
        raise HostRefusedError(
            f"THE HOST'S KEY HAS CHANGED: it shows {shown}, but {place} lists another one. Somebody may be "
            "listening in; nothing was sent",
            where=self._where,
            hint="Ask the centre whether its key has changed. If it has, remove that line and add the new key.",
        )
