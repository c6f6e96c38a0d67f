"""The satellite over the ssh program: for Kerberos, FIDO keys, and whatever ``~/.ssh/config`` can say."""

from __future__ import annotations

import os
import re

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
)
from dagster_slurm_components.hosts import bootstrap
from dagster_slurm_components.hosts.channel import Pipe
from dagster_slurm_components.hosts.subprocess_dialer import SubprocessDialer, SubprocessPipe
from dagster_slurm_components.spec.hosts import JumpHost, SshHost

_SSH_FAILED = 255
_REFUSED = re.compile(
    "Host key verification failed|HOST IDENTIFICATION HAS CHANGED|No matching|no mutual|Bad configuration",
    re.IGNORECASE,
)
_LOGIN = re.compile("Permission denied|Too many authentication failures", re.IGNORECASE)
_START_TIMEOUT = 60.0


class SshProgramDialer:
    """Reaches a host with the user's own ``ssh``, which asks nothing and checks host keys strictly."""

    def __init__(self, spec: SshHost, *, program: str = "ssh") -> None:
        self._spec = spec
        self._program = program
        self.name = f"{spec.user}@" * bool(spec.user) + f"{spec.hostname}:{spec.port}"

    def dial(self) -> Pipe:
        """Start ``ssh`` and the satellite behind it; see ``Dialer``."""
        found = []
        for python in bootstrap.PYTHONS:
            pipe = _Ending(self._start(python))
            try:
                bootstrap.boot(pipe, self.name, _START_TIMEOUT)
            except bootstrap.NoPythonError as error:
                found.append(f"  {python}: {error.message}")
            except HostError as error:
                raise self._translated(pipe, error) from error
            else:
                return pipe
        raise HostRefusedError("no Python 3.6 or newer was found:\n" + "\n".join(found), where=self.name)

    def extend(self, pipe: Pipe) -> Pipe | None:
        """Return nothing: each ``ssh`` is a connection of its own, and another one might need another login."""
        return None

    def arguments(self, python: str) -> list[str]:
        """Return the command line."""
        spec = self._spec
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(max(1, round(spec.connect_timeout))),
            "ServerAliveInterval": str(round(spec.keepalive)),
            "ControlPath": "none",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
        }
        if spec.known_hosts_file:
            options["UserKnownHostsFile"] = _quoted(os.path.expanduser(spec.known_hosts_file))
        if spec.key_file:
            options |= {"IdentityFile": _quoted(os.path.expanduser(spec.key_file)), "IdentitiesOnly": "yes"}
        command = [self._program, "-T", *(f"-o{name}={value}" for name, value in options.items())]
        if "port" in spec.model_fields_set:
            command.append(f"-p{spec.port}")
        if spec.user:
            command.append(f"-l{spec.user}")
        if spec.jump:
            command.append("-J" + ",".join(_hop(jump, spec) for jump in spec.jump))
        return [*command, "--", spec.hostname, bootstrap.shell_command(python)]

    def _start(self, python: str) -> SubprocessPipe:
        return SubprocessDialer(self._program).start(self.arguments(python))

    def _translated(self, pipe: _Ending, error: HostError) -> HostError:
        ending = pipe.last
        if ending is None or ending.returncode != _SSH_FAILED:
            return error
        said = ending.stderr.strip()
        if _REFUSED.search(said):
            return HostRefusedError(f"ssh refuses: {said}", where=self.name)
        if _LOGIN.search(said):
            return LoginRequiredError(
                f"the login was not accepted: {said}",
                where=self.name,
                hint="Renew the ticket, certificate or key that ssh uses (kinit, ssh-add), then all goes on.",
            )
        return HostUnreachableError(f"can't connect: {said}", where=self.name)


class _Ending:
    """A pipe that remembers how its process ended."""

    def __init__(self, pipe: SubprocessPipe) -> None:
        self._pipe = pipe
        self.read, self.write, self.close = pipe.read, pipe.write, pipe.close
        self.last: bootstrap.Ending | None = None

    def ending(self) -> bootstrap.Ending:
        self.last = self._pipe.ending()
        return self.last


def _quoted(path: str) -> str:
    # ssh splits the value of an option as a line of its configuration.
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _hop(jump: JumpHost, spec: SshHost) -> str:
    user = jump.user or spec.user
    name = f"[{jump.hostname}]" if ":" in jump.hostname else jump.hostname
    return (f"{user}@" if user else "") + name + (f":{jump.port}" if "port" in jump.model_fields_set else "")
