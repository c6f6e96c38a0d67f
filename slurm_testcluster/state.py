"""What is settled once per folder and kept between calls: ``cluster.json``."""

from __future__ import annotations

import json
import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

from slurm_testcluster.isolation import Isolation
from slurm_testcluster.layout import ClusterError, ClusterUnavailableError, Layout, Ports

NAME = "cluster.json"
FORMAT = 1


@dataclass(frozen=True)
class State:
    """A cluster's settled choices.

    Args:
        layout: The folder, its user and its ports.
        isolation: How its daemons get host names of their own.
    """

    layout: Layout
    isolation: Isolation


def new_state(folder: Path, ports: Ports, isolation: Isolation) -> State:
    """Make the state of a cluster of the calling user."""
    me = pwd.getpwuid(os.getuid())
    isolated = isolation is not Isolation.NONE
    hostname = socket.gethostname()
    layout = Layout(
        folder=folder,
        user=me.pw_name,
        home=Path(me.pw_dir),
        ports=ports,
        isolated=isolated,
        hostname=hostname,
        address="127.0.0.1" if isolated else _loopback_address(hostname),
    )
    return State(layout, isolation)


def _loopback_address(hostname: str) -> str:
    """Return what the machine's host name resolves to, since Slurm's daemons will listen there.

    Raises:
        ClusterUnavailableError: It is not a loopback address.
    """
    try:
        address = socket.gethostbyname(hostname)
    except OSError:
        address = "nothing"
    if not address.startswith("127."):
        raise ClusterUnavailableError(
            f"this machine permits no namespaces, and its host name {hostname} resolves to {address}, "
            "while the cluster listens on loopback only",
            hint=f"Run it as root or with sudo, or add the line `127.0.0.1 {hostname}` to /etc/hosts.",
        )
    return address


def load_state(folder: Path) -> State | None:
    """Read the state of the cluster in a folder; None when there is no cluster.

    Raises:
        ClusterError: The file is from another version, or belongs to another user.
    """
    file = folder / NAME
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ClusterError(f"can't be read: {error}", where=str(file), hint=_START_OVER) from error
    if data.get("format") != FORMAT:
        raise ClusterError("is of another version of this program", where=str(file), hint=_START_OVER)
    me = pwd.getpwuid(os.getuid()).pw_name
    if data["user"] != me:
        raise ClusterError(f"the cluster belongs to {data['user']}, not to {me}", where=str(folder))
    isolation = Isolation(data["isolation"])
    layout = Layout(
        folder=folder,
        user=data["user"],
        home=Path(data["home"]),
        ports=Ports(data["first_port"]),
        isolated=isolation is not Isolation.NONE,
        hostname=data["hostname"],
        address=data["address"],
    )
    return State(layout, isolation)


_START_OVER = "End its processes, remove the folder and start again."


def save_state(state: State) -> None:
    """Write ``cluster.json``."""
    layout = state.layout
    data = {
        "format": FORMAT,
        "user": layout.user,
        "home": str(layout.home),
        "first_port": layout.ports.first,
        "isolation": state.isolation.value,
        "hostname": layout.hostname,
        "address": layout.address,
    }
    write_file(layout.folder / NAME, json.dumps(data, indent=2) + "\n")


def write_file(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all, with exactly this mode."""
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    new.chmod(mode)
    new.replace(file)
