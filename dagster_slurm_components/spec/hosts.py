"""Where commands run: this machine, or one that is reached over ssh."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from dagster_slurm_components.spec.base import WHOLE, AboveZero, Model, Number, Word
from dagster_slurm_components.spec.registry import Choice, Registry

Port = Annotated[int, Field(ge=1, le=65535), WHOLE]

LoginStep = Literal["key", "password", "otp", "certificate", "gssapi"]


class HostSpec(Model):
    """The base of all hosts; ``type`` chooses one."""

    type: str = Field(description="Which kind of host.", examples=["local"])


class LocalHost(HostSpec):
    """This machine."""

    type: Literal["local"] = Field(default="local", description="Which kind of host.", examples=["local"])


class JumpHost(Model):
    """A host that connections to the next one go through."""

    hostname: Word = Field(description="Name or address.", examples=["bastion.example.org"])
    port: Port = Field(default=22, description="Port.", examples=[22])
    user: Word | None = Field(
        default=None, description="User; else that of the host itself.", examples=["ada"]
    )
    key_file: Word | None = Field(
        default=None, description="Private key; else that of the host itself.", examples=["~/.ssh/id_ed25519"]
    )
    login: list[LoginStep] = Field(
        default=["key"], description="What this hop asks for, in order.", examples=[["password", "otp"]]
    )


def _jump(value: Any) -> Any:
    """Read ``[user@]hostname[:port]`` as sshd's users write it."""
    if not isinstance(value, str):
        return value
    user, _, place = value.rpartition("@")
    hostname, colon, port = place.rpartition(":")
    parts: dict[str, Any] = {"hostname": hostname if colon and port.isdigit() else place}
    if colon and port.isdigit():
        parts["port"] = int(port)
    if user:
        parts["user"] = user
    return parts


class _JumpText:
    """Lets text pass in the JSON Schema too."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": r"\S"}, handler(schema)]}


Jump = Annotated[JumpHost, BeforeValidator(_jump), _JumpText()]


class SshHost(HostSpec):
    """A machine that is reached over ssh; its host key must be known."""

    type: Literal["ssh"] = Field(default="ssh", description="Which kind of host.", examples=["ssh"])
    hostname: Word = Field(description="Name or address.", examples=["login.example.org"])
    port: Port = Field(default=22, description="Port.", examples=[22])
    user: Word | None = Field(default=None, description="User; else the local user's name.", examples=["ada"])
    key_file: Word | None = Field(
        default=None,
        description="Private key; else those that the ssh agent and `~/.ssh` offer.",
        examples=["~/.ssh/id_ed25519"],
    )
    known_hosts_file: Word | None = Field(
        default=None,
        description="File with the host's public key; else `~/.ssh/known_hosts`.",
        examples=["~/.ssh/known_hosts"],
    )
    jump: list[Jump] = Field(
        default=[],
        description="Hosts to go through, nearest first: `user@hostname:port`, or a mapping.",
        examples=[["bastion.example.org"]],
    )
    login: list[LoginStep] = Field(
        default=["key"],
        description="What the host asks for, in order; all but `key` need `dg-slurm login PROFILE` once.",
        examples=[["key", "otp"]],
    )
    secret_command: list[Word] = Field(
        default=[],
        description="Command on this machine that prints the answer to a question of the login, where the centre"
        " allows that; it finds the question in `DG_SLURM_KIND`, `DG_SLURM_PROMPT` and `DG_SLURM_HOST`.",
        examples=[["pass", "show", "hpc/otp"]],
    )
    dialer: Literal["fabric", "ssh"] = Field(
        default="fabric",
        description="`ssh` for logins that other programs renew (Kerberos, FIDO keys): steps wait for the renewal"
        " when one is not accepted. Both values use OpenSSH's own program and `~/.ssh/config`.",
        examples=["ssh"],
    )
    agent: bool = Field(
        default=True,
        description="Whether all processes of a user on this machine share one connection, through the agent.",
        examples=[False],
    )
    reconnect_interval: AboveZero = Field(
        default=15,
        description="Least seconds between two attempts to connect; after failures they grow to a minute.",
        examples=[15],
    )
    connect_timeout: AboveZero = Field(
        default=15, description="Seconds until a connection attempt fails.", examples=[15]
    )
    keepalive: Number = Field(
        default=30, description="Seconds between keep-alive packets; 0 for none.", examples=[30]
    )


HOSTS: Registry[HostSpec] = Registry("host", "dagster_slurm_components.hosts", (LocalHost, SshHost))
"""Model by host type."""

Host = Annotated[HostSpec, Choice(HOSTS)]
"""A field that holds any host."""
