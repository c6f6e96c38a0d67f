"""Where everything of one cluster lies: its folder, its ports, its nodes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class ClusterError(Exception):
    """The test cluster could not be started, changed or stopped.

    Args:
        message: What happened.
        where: The folder, file or log that it is about.
        hint: What the reader can do about it.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Render as ``where: message``, and the hint in a line of its own."""
        text = f"{self.where}: {self.args[0]}" if self.where else str(self.args[0])
        return f"{text}\n{self.hint}" if self.hint else text


class ClusterUnavailableError(ClusterError):
    """A cluster can't be had on this machine as it is; the hint says what it needs."""


@dataclass(frozen=True)
class Node:
    """One virtual compute node.

    Args:
        name: Its Slurm name, which is also its host name inside jobs where namespaces are permitted.
        number: Counts from 1; the node's second name (``<name>-net``) resolves to 127.0.10.<number>.
        gpus: How many fake GPUs it has.
    """

    name: str
    number: int
    gpus: int = 0


NODES = (Node("node1", 1), Node("node2", 2), Node("node3", 3, gpus=4), Node("node4", 4, gpus=4))

CLUSTER_NAME = "lab"
CONTROLLER = "head"
LOGIN = "login"


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one cluster, a block of consecutive numbers.

    Args:
        first: The first port of the block.
    """

    first: int

    # Beyond the eight used now there is room for further sshd instances.
    BLOCK = 16
    # Below the kernel's range for outgoing connections (32768-60999), which would otherwise take one of
    # ours while a daemon is being restarted.
    LOWEST = 17000
    HIGHEST = 32000

    @property
    def sshd(self) -> int:
        """Where sshd listens for key logins."""
        return self.first

    @property
    def slurmctld(self) -> int:
        """Where the controller listens."""
        return self.first + 1

    @property
    def slurmdbd(self) -> int:
        """Where the accounting daemon listens."""
        return self.first + 2

    def slurmd(self, node: Node) -> int:
        """Where the daemon of one node listens."""
        return self.first + 2 + node.number

    @property
    def used(self) -> tuple[int, ...]:
        """Every port that a daemon listens on."""
        return (self.sshd, self.slurmctld, self.slurmdbd, *(self.slurmd(node) for node in NODES))


def choose_ports(folder: Path, is_free: Callable[[int], bool], stored: Ports | None = None) -> Ports:
    """Choose a block of free ports.

    The search starts with the stored block, then at a place that depends on the folder, so that two
    clusters which start at the same moment look at different blocks.

    Args:
        folder: The cluster's folder.
        is_free: Whether nothing listens on a port now.
        stored: The block used before, kept if it is still free.

    Raises:
        ClusterError: No block is free.
    """
    blocks = (Ports.HIGHEST - Ports.LOWEST) // Ports.BLOCK
    start = zlib.crc32(str(folder).encode())
    candidates = [Ports(Ports.LOWEST + Ports.BLOCK * ((start + step) % blocks)) for step in range(blocks)]
    for ports in [stored, *candidates] if stored else candidates:
        if all(is_free(port) for port in ports.used):
            return ports
    raise ClusterError(f"no free block of TCP ports between {Ports.LOWEST} and {Ports.HIGHEST}")


# Unix sockets have at most 107 characters, and slurmd's longest is
# <folder>/spool/node1/node1_<job id>.<step id>, with a job id of 8 and a step id of 10 digits.
LONGEST_FOLDER = 107 - len("/spool/node1/node1_12345678.4294967291")


def check_folder(folder: Path) -> Path:
    """Return the folder as an absolute path that Slurm can work with.

    Raises:
        ClusterError: The path is too long or holds characters that Slurm's configuration can't carry.
    """
    folder = folder.expanduser().resolve()
    hint = "Choose another one with --folder or DAGSTER_SLURM_CLUSTER."
    if len(str(folder)) > LONGEST_FOLDER:
        raise ClusterError(
            f"the path has {len(str(folder))} characters; more than {LONGEST_FOLDER} are too many for the "
            "Unix sockets inside it",
            where=str(folder),
            hint=hint,
        )
    if not re.fullmatch(r"[A-Za-z0-9._/+@-]+", str(folder)):
        raise ClusterError(
            "Slurm's configuration can't carry this path: only letters, digits and . _ + @ - are safe",
            where=str(folder),
            hint=hint,
        )
    return folder


@dataclass(frozen=True)
class Layout:
    """One cluster's settled facts, from which every file and command line follows.

    Args:
        folder: The one folder that holds everything.
        user: Who starts the cluster, runs all of its daemons and submits jobs.
        home: That user's home folder.
        ports: Its block of ports.
        isolated: Whether daemons run under host names of their own (see ``isolation``).
        hostname: The machine's own host name, which daemons see where they are not isolated.
        address: The loopback address that Slurm's daemons listen on.
    """

    folder: Path
    user: str
    home: Path
    ports: Ports
    isolated: bool
    hostname: str
    address: str = "127.0.0.1"

    @property
    def etc(self) -> Path:
        """Configuration and the munge key."""
        return self.folder / "etc"

    @property
    def run(self) -> Path:
        """Process id files and the munge socket."""
        return self.folder / "run"

    @property
    def log(self) -> Path:
        """One log file per daemon."""
        return self.folder / "log"

    @property
    def spool(self) -> Path:
        """State of slurmctld and of each slurmd."""
        return self.folder / "spool"

    @property
    def database(self) -> Path:
        """MariaDB's data folder and its socket."""
        return self.folder / "db"

    @property
    def database_tmp(self) -> Path:
        """MariaDB's temporary tables: it removes those of every other server from a folder it shares."""
        return self.folder / "tmp"

    @property
    def ssh(self) -> Path:
        """Host key, user key, authorized keys and known hosts."""
        return self.folder / "ssh"

    @property
    def devices(self) -> Path:
        """The fake GPU device files."""
        return self.folder / "dev"

    @property
    def work(self) -> Path:
        """The profile's workdir."""
        return self.folder / "work"

    @property
    def slurm_conf(self) -> Path:
        """The file that SLURM_CONF names."""
        return self.etc / "slurm.conf"

    @property
    def hosts(self) -> Path:
        """What daemons and jobs see as /etc/hosts."""
        return self.etc / "hosts"

    @property
    def munge_socket(self) -> Path:
        """Where munged listens."""
        return self.run / "munge.sock"

    @property
    def database_socket(self) -> Path:
        """Where MariaDB listens."""
        return self.database / "sock"

    @property
    def key_file(self) -> Path:
        """The private key that logs the user in."""
        return self.ssh / "id_ed25519"

    @property
    def host_key_file(self) -> Path:
        """The private host key of sshd."""
        return self.ssh / "host_ed25519"

    @property
    def known_hosts_file(self) -> Path:
        """The known_hosts file that names this cluster's sshd alone."""
        return self.ssh / "known_hosts"

    def pid_file(self, daemon: str) -> Path:
        """The file that says which process a daemon is."""
        return self.run / f"{daemon}.pid"

    def log_file(self, daemon: str) -> Path:
        """A daemon's log."""
        return self.log / f"{daemon}.log"
