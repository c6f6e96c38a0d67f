"""What is settled once per cluster, and where everything of it lies; ``cluster.json`` keeps it between calls."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import subprocess
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_testcluster.errors import ClusterError, ClusterUnavailableError
from slurm_testcluster.isolation import Isolation
from slurm_testcluster.packages import find_program

NAME = "cluster.json"
FORMAT = 1
PATIENCE = 300.0
"""Seconds that a daemon or a program may take on a machine that is busy with ten other things."""
_FOREIGN = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_")
CONTROLLER = "head"
LOGIN = "login"


@dataclass(frozen=True)
class Node:
    """One virtual compute node, counted from 1, and how many fake GPUs it has.

    Its name is also its host name inside jobs where namespaces are permitted; its second name (``<name>-net``) resolves
    to 127.0.10.<number>.
    """

    name: str
    number: int
    gpus: int = 0

    @property
    def daemon(self) -> str:
        """The name of its slurmd."""
        return f"slurmd-{self.name}"


NODES = (Node("node1", 1), Node("node2", 2), Node("node3", 3, gpus=4), Node("node4", 4, gpus=4))
LISTENERS = ("sshd", "slurmctld", "slurmdbd", *(node.daemon for node in NODES))


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one cluster: a block of consecutive numbers that begins with ``first``."""

    first: int

    # Beyond the seven used now there is room for further sshd instances.
    BLOCK = 16
    # Below the kernel's range for outgoing connections (32768-60999), which would otherwise take one of
    # ours while a daemon is being restarted.
    LOWEST = 17000
    HIGHEST = 32000

    def of(self, daemon: str) -> int:
        """Return where a daemon listens."""
        return self.first + LISTENERS.index(daemon)

    @property
    def used(self) -> tuple[int, ...]:
        """Every port that a daemon listens on."""
        return tuple(range(self.first, self.first + len(LISTENERS)))


def choose_ports(folder: Path, is_free: Callable[[int], bool], stored: Ports | None = None) -> Ports:
    """Choose a block of free ports: the stored one if it still is.

    The search starts at a place that depends on the folder, so that two clusters which start at the same moment look
    at different blocks.

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
    length = len(str(folder))
    problem = None
    if length > LONGEST_FOLDER:
        problem = f"the path has {length} characters; more than {LONGEST_FOLDER} are too many for the "
        problem += "Unix sockets inside it"
    elif not re.fullmatch(r"[A-Za-z0-9._/+@-]+", str(folder)):
        problem = "Slurm's configuration can't carry this path: only letters, digits and . _ + @ - are safe"
    if problem:
        hint = "Choose another one with --folder or DAGSTER_SLURM_CLUSTER."
        raise ClusterError(problem, where=folder, hint=hint)
    return folder


class Below:
    """A path below a cluster's folder, as an attribute."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, layout: Layout, owner: object = None) -> Path:
        """Return the path in one cluster."""
        return layout.folder / self._path


@dataclass(frozen=True)
class Layout:
    """One cluster's settled facts, from which every file and command line follows.

    Args:
        folder: The one folder that holds everything.
        user: Who starts the cluster, runs all of its daemons and submits jobs.
        home: That user's home folder.
        ports: Its block of ports.
        isolation: How its daemons get host names of their own.
        hostname: The machine's own host name, which daemons see where they are not isolated.
        address: The loopback address that Slurm's daemons listen on.
        accounting: Whether it keeps accounts: without a database there are no limits, and sacct knows nothing.
    """

    folder: Path
    user: str
    home: Path
    ports: Ports
    isolation: Isolation
    hostname: str
    address: str = "127.0.0.1"
    accounting: bool = True

    @property
    def isolated(self) -> bool:
        """Whether daemons run under host names of their own."""
        return self.isolation is not Isolation.NONE

    etc = Below("etc")
    """Configuration and the munge key."""
    pids = Below("run")
    """Process id files and the munge socket."""
    log = Below("log")
    """One log file per daemon."""
    database = Below("db")
    """MariaDB's data folder and its socket."""
    database_tmp = Below("tmp")
    """MariaDB's temporary tables: it removes those of every other server from a folder it shares."""
    work = Below("work")
    """The profile's workdir."""
    slurm_conf = Below("etc/slurm.conf")
    """What SLURM_CONF must name for the Slurm programs to find this cluster."""
    hosts = Below("etc/hosts")
    """What daemons and jobs see as /etc/hosts."""
    munge_socket = Below("run/munge.sock")
    """Where munged listens."""
    key_file = Below("ssh/id_ed25519")
    """The private key that logs the user in."""
    known_hosts_file = Below("ssh/known_hosts")
    """The known_hosts file that names this cluster's sshd alone."""
    profile_file = Below("profile.yaml")
    """The profile, written."""

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = PATIENCE, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a Slurm program for this cluster.

        Args:
            argv: The command line, such as ``["scontrol", "show", "nodes"]``.
            check: Whether a non-zero exit status is an error.
            timeout: Seconds.
            stdin: What the program reads from its input.

        Raises:
            ClusterError: It ended with another exit status than 0, and ``check`` is set.
            subprocess.TimeoutExpired: It took too long.
        """
        # A caller inside a job, or with settings for another cluster, must not redirect these programs.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        completed = subprocess.run(
            [find_program(argv[0]), *argv[1:]],
            env={**environment, "SLURM_CONF": str(self.slurm_conf)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and completed.returncode != 0:
            status = f"exit status {completed.returncode}: {completed.stderr.strip()}"
            raise ClusterError(f"{' '.join(argv)} ended with {status}", where=self.folder)
        return completed

    def pid_file(self, daemon: str) -> Path:
        """The file that says which process a daemon is."""
        return self.pids / f"{daemon}.pid"

    def log_file(self, daemon: str) -> Path:
        """A daemon's log."""
        return self.log / f"{daemon}.log"


def new_layout(folder: Path, ports: Ports, isolation: Isolation, *, accounting: bool = True) -> Layout:
    """Settle the facts of a new cluster of the calling user.

    Raises:
        ClusterUnavailableError: Without namespaces, Slurm's daemons listen on what the machine's host name resolves
            to, and that is no loopback address.
    """
    me, hostname = pwd.getpwuid(os.getuid()), socket.gethostname()
    address = "127.0.0.1"
    if isolation is Isolation.NONE:
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
    return Layout(folder, me.pw_name, Path(me.pw_dir), ports, isolation, hostname, address, accounting)


def load_layout(folder: Path) -> Layout | None:
    """Read ``cluster.json``; None when there is no cluster in the folder.

    Raises:
        ClusterError: The file is from another version, or belongs to another user.
    """
    file = folder / NAME
    start_over = "End its processes, remove the folder and start again."
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ClusterError(f"can't be read: {error}", where=file, hint=start_over) from error
    if data.get("format") != FORMAT:
        raise ClusterError("is of another version of this program", where=file, hint=start_over)
    me = pwd.getpwuid(os.getuid()).pw_name
    if data["user"] != me:
        raise ClusterError(f"the cluster belongs to {data['user']}, not to {me}", where=folder)
    ports, isolation = Ports(data["first_port"]), Isolation(data["isolation"])
    place = data["hostname"], data["address"]
    return Layout(folder, me, Path(data["home"]), ports, isolation, *place, data.get("accounting", True))


def save_layout(layout: Layout) -> None:
    """Write ``cluster.json``."""
    data = {
        "format": FORMAT,
        "user": layout.user,
        "home": str(layout.home),
        "first_port": layout.ports.first,
        "isolation": layout.isolation.value,
        "hostname": layout.hostname,
        "address": layout.address,
        "accounting": layout.accounting,
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
