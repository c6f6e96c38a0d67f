"""Where commands run: this machine, or one that is reached over ssh."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from dagster_slurm_components.spec.base import WHOLE, AboveZero, Format, Number, Text, Word
from dagster_slurm_components.spec.model import Model, option, required
from dagster_slurm_components.spec.registry import Registry

Port = Annotated[int, Field(ge=1, le=65535), WHOLE]

LoginStep = Literal["key", "password", "otp", "certificate", "gssapi"]


Interpreter = Annotated[
    Word, Format(r"(~?/.*[^/])|[^/~]+", "a program", "python3.11 or /opt/python/bin/python3")
]


class HostSpec(Model):
    """The base of all hosts; ``type`` chooses one."""

    type: str = required("Which kind of host.", "local")


class LocalHost(HostSpec):
    """This machine."""

    type: Literal["local"] = option("Which kind of host.", "local", default="local")


class JumpHost(Model):
    """A host that connections to the next one go through."""

    hostname: Word = required("Name or address.", "bastion.example.org")
    port: Port = option("Port.", 22, default=22)
    user: Word | None = option("User; else that of the host itself.", "ada")
    key_file: Word | None = option("Private key; else that of the host itself.", "~/.ssh/id_ed25519")
    login: list[LoginStep] = option("What this hop asks for, in order.", ["password", "otp"], default=["key"])


_JUMP = re.compile(r"(?:(?P<user>.*)@)?(?P<hostname>.*?)(?::(?P<port>[0-9]+))?", re.DOTALL)


def _jump(value: Any) -> Any:
    """Read ``[user@]hostname[:port]`` as sshd's users write it."""
    if not isinstance(value, str):
        return value
    match = _JUMP.fullmatch(value)
    parts = match.groupdict() if match else {"hostname": value}
    return {key: part for key, part in parts.items() if part or key == "hostname"}


class _JumpText:
    """Lets text pass in the JSON Schema too."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": r"\S"}, handler(schema)]}


Jump = Annotated[JumpHost, BeforeValidator(_jump), _JumpText()]


class SshHost(HostSpec):
    """A machine that is reached over ssh; its host key must be known."""

    type: Literal["ssh"] = option("Which kind of host.", "ssh", default="ssh")
    hostname: Word = required("Name or address.", "login.example.org")
    port: Port = option("Port.", 22, default=22)
    user: Word | None = option("User; else the local user's name.", "ada")
    key_file: Word | None = option(
        "Private key; else those that the ssh agent and `~/.ssh` offer.", "~/.ssh/id_ed25519"
    )
    known_hosts_file: Word | None = option(
        "File with the host's public key; else `~/.ssh/known_hosts`.", "~/.ssh/known_hosts"
    )
    jump: list[Jump] = option(
        "Hosts to go through, nearest first: `user@hostname:port`, or a mapping.",
        ["bastion.example.org"],
        default=[],
    )
    login: list[LoginStep] = option(
        "What the host asks for, in order; all but `key` need `dg-slurm login PROFILE` once.",
        ["key", "otp"],
        default=["key"],
    )
    secret_command: list[Word] = option(
        "Command on this machine that prints the answer to a question of the login, where the centre"
        " allows that; it finds the question in `DG_SLURM_KIND`, `DG_SLURM_PROMPT` and `DG_SLURM_HOST`.",
        ["pass", "show", "hpc/otp"],
        default=[],
    )
    dialer: Literal["fabric", "ssh"] = option(
        "`ssh` for logins that other programs renew (Kerberos, FIDO keys): steps wait for the renewal"
        " when one is not accepted. Both values use OpenSSH's own program and `~/.ssh/config`.",
        "ssh",
        default="fabric",
    )
    python: Interpreter | None = option(
        "Python 3.6 or newer on the host, a name on its `PATH` or an absolute path: it runs our side there, and in jobs"
        " whose environment has no Python. By default `python3`.",
        "python3.11",
    )
    setup: list[Text] = option(
        "Shell commands run in this order by bash at each connection, before `python` starts; one that fails ends it."
        " What they export for programs to be found by (`PATH`, `LD_LIBRARY_PATH`) jobs inherit as well.",
        ["module load python/3.11"],
        default=[],
    )
    agent: bool = option(
        "Whether all processes of a user on this machine share one connection, through the agent.",
        False,
        default=True,
    )
    reconnect_interval: AboveZero = option(
        "Least seconds between two attempts to connect; after refusals they grow to a minute.", 15, default=15
    )
    connect_timeout: AboveZero = option("Seconds until a connection attempt fails.", 15, default=15)
    keepalive: Number = option("Seconds between keep-alive packets; 0 for none.", 30, default=30)


HOSTS: Registry[HostSpec] = Registry("host", "dagster_slurm_components.hosts", (LocalHost, SshHost))
"""Model by host type."""

Host = Annotated[HostSpec, HOSTS]
"""A field that holds any host."""
