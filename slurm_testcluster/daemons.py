"""The daemons of a cluster, described once; starting, checking and stopping follow from the description."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slurm_testcluster import process
from slurm_testcluster.errors import ClusterError
from slurm_testcluster.isolation import isolated_argv
from slurm_testcluster.layout import CONTROLLER, LOGIN, NODES, PATIENCE, Layout
from slurm_testcluster.packages import find_program
from slurm_testcluster.process import Identity
from slurm_testcluster.render import CONF

START = Path(__file__).with_name("start.sh")

# Set in every daemon, and so in each slurmstepd: tells them from a person's processes.
DAEMON_MARK = "DAGSTER_SLURM_CLUSTER_DAEMON"

_LAUNCHED = 60.0
"""Seconds within which a daemon's process id is written, unless its command line can't be started."""

_MUNGED = (
    "--foreground",
    # munged 0.5.15 refuses a socket that not everyone on the machine could reach; a home folder that is
    # closed to others (root's, and everyone's on Ubuntu) is as it should be for a cluster of one user.
    "--force",
)
_MARIADBD = (
    "--skip-networking",
    "--skip-log-bin",
    # A test database: small, and not flushed to disk at each commit.
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--sync-frm=OFF",
    "--innodb-lock-wait-timeout=900",
    # slurmdbd ends at a write conflict where this is on, as it is by default from MariaDB 11.6 on.
    "--loose-innodb-snapshot-isolation=OFF",
    # slurmdbd would make its database itself, but with MariaDB's client library 3.4.10 the connection with which it
    # found none is of no use any more: error 5027, and it ends (Debian 13).
    f"--init-file={CONF / 'database.sql'}",
)


@dataclass(frozen=True)
class Daemon:
    """One long-running program of the cluster.

    Args:
        name: Unique in the cluster; names its pid file and log file too.
        argv: The command line that runs it in the foreground.
        ready: What accepts a connection once it is ready: a Unix socket, or a TCP address and port.
        hostname: The host name it runs under where namespaces are permitted; None for the machine's own.
        environment: Variables beside the few that every daemon gets.
    """

    name: str
    argv: Sequence[str]
    ready: Path | tuple[str, int]
    hostname: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


def waves(layout: Layout) -> list[list[Daemon]]:
    """Describe all daemons, grouped: each group starts together once the group before it is ready."""
    munge, database, pids = layout.munge_socket, layout.database, layout.pids
    munged = [
        *("munged", *_MUNGED, f"--socket={munge}", f"--key-file={layout.etc}/munge.key"),
        *(f"--pid-file={pids}/munged.self", f"--seed-file={pids}/munged.seed"),
        f"--log-file={layout.log_file('munged')}",
    ]
    mariadbd = [
        *("mariadbd", "--no-defaults", f"--user={layout.user}", f"--datadir={database}"),
        *(f"--socket={database}/sock", f"--tmpdir={layout.database_tmp}", f"--pid-file={pids}/mariadbd.self"),
        *_MARIADBD,
    ]

    def listening(name: str, hostname: str, *argv: str, **environment: str) -> Daemon:
        address = "127.0.0.1" if name == "sshd" else layout.address
        return Daemon(name, argv, (address, layout.ports.of(name)), hostname, environment)

    # slurmdbd has no option for the database's socket; the client library reads this variable.
    to_database = {"MYSQL_UNIX_PORT": f"{database}/sock"}
    accounts = layout.accounting
    return [
        [
            Daemon("munged", munged, munge),
            *([Daemon("mariadbd", mariadbd, database / "sock")] if accounts else []),
            listening("sshd", LOGIN, "sshd", "-D", "-e", "-f", f"{layout.etc}/sshd_config"),
        ],
        *([[listening("slurmdbd", CONTROLLER, "slurmdbd", "-D", **to_database)]] if accounts else []),
        [
            # -i: a controller that was killed before it first wrote its state starts again, also in Slurm 26.05.
            listening("slurmctld", CONTROLLER, "slurmctld", "-D", "-i"),
            *(listening(node.daemon, node.name, "slurmd", "-D", "-N", node.name) for node in NODES),
        ],
    ]


def all_daemons(layout: Layout) -> list[Daemon]:
    """Describe all daemons, in the order in which they start."""
    return [daemon for wave in waves(layout) for daemon in wave]


def by_name(layout: Layout, name: str) -> Daemon:
    """Return the daemon of this name.

    Raises:
        ClusterError: There is none.
    """
    daemons = {daemon.name: daemon for daemon in all_daemons(layout)}
    if name not in daemons:
        raise ClusterError(f"there is no daemon {name!r}", hint=f"There are: {', '.join(daemons)}.")
    return daemons[name]


def launch_argv(daemon: Daemon, layout: Layout) -> list[str]:
    """Return the command line that starts a daemon in a session of its own and returns at once."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(layout.home),
        "USER": layout.user,
        "LOGNAME": layout.user,
        **daemon.environment,
        # These two come last: slurmstepd writes its title over the beginning of what /proc shows of its
        # environment, and by these it is recognized as ours.
        "SLURM_CONF": str(layout.slurm_conf),
        DAEMON_MARK: daemon.name,
    }
    argv = [
        *("/bin/sh", str(START), str(layout.pid_file(daemon.name)), str(layout.log_file(daemon.name))),
        *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
        *(find_program(daemon.argv[0]), *daemon.argv[1:]),
    ]
    if daemon.hostname is not None:
        argv = isolated_argv(layout.isolation, daemon.hostname, layout.hosts, argv)
    # `setsid --fork` leaves the daemon to init, so that no caller has to reap it.
    return ["setsid", "--fork", *argv]


def running(daemon: Daemon, layout: Layout) -> Identity | None:
    """Return the process that a daemon runs as; None when it does not run."""
    identity = Identity.read(layout.pid_file(daemon.name))
    return identity if identity is not None and identity.is_alive() else None


def accepts(ready: Path | tuple[str, int]) -> bool:
    """Whether a Unix socket, or a TCP address and port, accepts connections."""
    family = socket.AF_UNIX if isinstance(ready, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        return client.connect_ex(str(ready) if isinstance(ready, Path) else ready) == 0


def start(daemons: Iterable[Daemon], layout: Layout, timeout: float = PATIENCE) -> None:
    """Start daemons side by side and wait until each is ready.

    Raises:
        ClusterError: One ended, or was not ready in time; the message holds the end of its log.
    """
    daemons = list(daemons)
    for daemon in daemons:
        layout.pid_file(daemon.name).unlink(missing_ok=True)
        if isinstance(daemon.ready, Path):
            daemon.ready.unlink(missing_ok=True)
        with layout.log_file(daemon.name).open("ab") as log:
            argv = launch_argv(daemon, layout)
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", check=True)
    deadline = time.monotonic() + timeout
    for daemon in daemons:
        _wait_ready(daemon, layout, deadline)


def _wait_ready(daemon: Daemon, layout: Layout, deadline: float) -> None:
    launched = time.monotonic()
    while not (accepts(daemon.ready) and running(daemon, layout)):
        written = Identity.read(layout.pid_file(daemon.name))
        ended = not written.is_alive() if written else time.monotonic() > launched + _LAUNCHED
        if ended or time.monotonic() > deadline:
            what = "ended at once" if ended else "was not ready in time"
            log = layout.log_file(daemon.name)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            raise ClusterError(f"{daemon.name} {what}; the end of its log:\n{tail}", where=log)
        time.sleep(0.01)


def members(layout: Layout) -> list[Identity]:
    """Find all processes of a cluster: its daemons, their jobs, and what is left of either.

    A job's processes outlive slurmd, and may have left their process group, so three marks count:
    descent from one of our daemons; seeing our hosts file as /etc/hosts, which the namespaces of our
    daemons alone do; and the variables that slurmstepd gives to a job of ours.
    """
    pids = {identity.pid for daemon in all_daemons(layout) if (identity := running(daemon, layout))}
    pids |= {pid for pid in process.all_pids() if _is_marked(pid, layout)}
    ours = process.descendants(pids) - {os.getpid()}
    return [identity for pid in sorted(ours) if (identity := process.identify(pid))]


def _is_marked(pid: int, layout: Layout) -> bool:
    if layout.isolated and process.sees_file_as(pid, "/etc/hosts", layout.hosts):
        return True
    variables = process.environment(pid)
    # A person's shell may have exported SLURM_CONF: that alone makes nothing ours.
    ours = f"SLURM_CONF={layout.slurm_conf}".encode() in variables
    return ours and any(
        variable.startswith((b"SLURM_JOB_ID=", DAEMON_MARK.encode())) for variable in variables
    )
