"""The daemons of a cluster, described once; starting, checking and stopping follow from the description."""

from __future__ import annotations

import contextlib
import pwd
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from slurm_testcluster.isolation import Isolation, isolated_argv
from slurm_testcluster.layout import CONTROLLER, LOGIN, NODES, ClusterError, Layout
from slurm_testcluster.packages import find_program
from slurm_testcluster.process import Identity

START = Path(__file__).with_name("start.sh")

# Set in every daemon, and so in each slurmstepd: tells them from a person's processes.
DAEMON_MARK = "DAGSTER_SLURM_CLUSTER_DAEMON"


@dataclass(frozen=True)
class Daemon:
    """One long-running program of the cluster.

    Args:
        name: Unique in the cluster; names its pid file and log file too.
        argv: The command line that runs it in the foreground.
        ready: What accepts a connection once it is ready: a Unix socket, or a TCP address and port.
        hostname: The host name it runs under where namespaces are permitted; None for the machine's own.
        user: Who it runs as; anyone but the caller needs the caller to be root.
        environment: Variables beside the few that every daemon gets.
    """

    name: str
    argv: tuple[str, ...]
    ready: Path | tuple[str, int]
    user: str
    hostname: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


def waves(layout: Layout, find: Callable[[str], str] = find_program) -> tuple[tuple[Daemon, ...], ...]:
    """Describe all daemons, grouped: each group starts together once the group before it is ready.

    Args:
        layout: The cluster.
        find: Turns a program's name into its path.
    """
    return (
        (_munged(layout, find), _mariadbd(layout, find), _sshd(layout, find)),
        (_slurmdbd(layout, find),),
        (_slurmctld(layout, find), *_slurmds(layout, find)),
    )


def all_daemons(layout: Layout) -> list[Daemon]:
    """Describe all daemons, in the order in which they start."""
    return [daemon for wave in waves(layout) for daemon in wave]


def by_name(layout: Layout, name: str) -> Daemon:
    """Return the daemon of this name.

    Raises:
        ClusterError: There is none.
    """
    known = {daemon.name: daemon for daemon in all_daemons(layout)}
    if name not in known:
        raise ClusterError(f"there is no daemon {name!r}", hint=f"There are: {', '.join(known)}.")
    return known[name]


def _munged(layout: Layout, find: Callable[[str], str]) -> Daemon:
    argv = (
        find("munged"),
        "--foreground",
        # munged 0.5.15 refuses a socket that not everyone on the machine could reach; a home folder that is
        # closed to others (root's, and everyone's on Ubuntu) is as it should be for a cluster of one user.
        "--force",
        f"--socket={layout.munge_socket}",
        f"--key-file={layout.etc}/munge.key",
        f"--pid-file={layout.run}/munged.self",
        f"--seed-file={layout.run}/munged.seed",
        f"--log-file={layout.log_file('munged')}",
    )
    return Daemon("munged", argv, layout.munge_socket, layout.user)


def _mariadbd(layout: Layout, find: Callable[[str], str]) -> Daemon:
    argv = (
        find("mariadbd"),
        "--no-defaults",
        f"--user={layout.user}",
        f"--datadir={layout.database}",
        f"--socket={layout.database_socket}",
        f"--tmpdir={layout.database_tmp}",
        f"--pid-file={layout.run}/mariadbd.self",
        "--skip-networking",
        "--skip-log-bin",
        # A test database: small, and not flushed to disk at each commit.
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=16M",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-flush-method=nosync",
        "--sync-frm=OFF",
        "--innodb-lock-wait-timeout=900",
    )
    return Daemon("mariadbd", argv, layout.database_socket, layout.user)


def _sshd(layout: Layout, find: Callable[[str], str]) -> Daemon:
    argv = (find("sshd"), "-D", "-e", "-f", f"{layout.etc}/sshd_config")
    return Daemon("sshd", argv, ("127.0.0.1", layout.ports.sshd), layout.user, hostname=LOGIN)


def _slurmdbd(layout: Layout, find: Callable[[str], str]) -> Daemon:
    return Daemon(
        "slurmdbd",
        (find("slurmdbd"), "-D"),
        (layout.address, layout.ports.slurmdbd),
        layout.user,
        hostname=CONTROLLER,
        # slurmdbd has no option for the database's socket; the client library reads this variable.
        environment={"MYSQL_UNIX_PORT": str(layout.database_socket)},
    )


def _slurmctld(layout: Layout, find: Callable[[str], str]) -> Daemon:
    return Daemon(
        "slurmctld",
        (find("slurmctld"), "-D"),
        (layout.address, layout.ports.slurmctld),
        layout.user,
        hostname=CONTROLLER,
    )


def _slurmds(layout: Layout, find: Callable[[str], str]) -> list[Daemon]:
    return [
        Daemon(
            f"slurmd-{node.name}",
            (find("slurmd"), "-D", "-N", node.name),
            (layout.address, layout.ports.slurmd(node)),
            layout.user,
            hostname=node.name,
        )
        for node in NODES
    ]


def launch_argv(daemon: Daemon, layout: Layout, isolation: Isolation) -> list[str]:
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
    program = [
        *("/bin/sh", str(START), str(layout.pid_file(daemon.name)), str(layout.log_file(daemon.name))),
        *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
        *daemon.argv,
    ]
    if daemon.user != layout.user:
        account = pwd.getpwnam(daemon.user)
        ids = ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--init-groups"]
        program = ["setpriv", *ids, *program]
    if daemon.hostname is not None:
        program = isolated_argv(isolation, daemon.hostname, layout.hosts, program)
    # `setsid --fork` leaves the daemon to init, so that no caller has to reap it.
    return ["setsid", "--fork", *program]


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


def start(daemons: Iterable[Daemon], layout: Layout, isolation: Isolation, timeout: float = 30.0) -> None:
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
            argv = launch_argv(daemon, layout, isolation)
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", check=True)
    deadline = time.monotonic() + timeout
    for daemon in daemons:
        _wait_ready(daemon, layout, deadline)


def _wait_ready(daemon: Daemon, layout: Layout, deadline: float) -> None:
    launched = time.monotonic()
    while True:
        if accepts(daemon.ready) and running(daemon, layout):
            return
        written = Identity.read(layout.pid_file(daemon.name))
        ended = not written.is_alive() if written else time.monotonic() > launched + 5
        if ended or time.monotonic() > deadline:
            what = "ended at once" if ended else "was not ready in time"
            log = layout.log_file(daemon.name)
            raise ClusterError(f"{daemon.name} {what}; the end of its log:\n{tail(log)}", where=str(log))
        time.sleep(0.01)


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log."""
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"
