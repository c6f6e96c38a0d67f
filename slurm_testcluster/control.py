"""Bring a cluster up, look at it, repair it, take it down."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slurm_testcluster import daemons, process, render
from slurm_testcluster.daemons import members
from slurm_testcluster.errors import ClusterError
from slurm_testcluster.isolation import detect
from slurm_testcluster.layout import (
    NAME,
    PATIENCE,
    Layout,
    check_folder,
    choose_ports,
    load_layout,
    new_layout,
    save_layout,
)
from slurm_testcluster.lock import folder_lock
from slurm_testcluster.packages import ensure_packages
from slurm_testcluster.prepare import prepare
from slurm_testcluster.status import (
    ClusterStatus,
    job_counts,
    look,
    node_states,
    nodes_are_good,
)

Report = Callable[[str], None]


def _silent(line: str) -> None: ...


def default_folder() -> Path:
    """Return the folder of the cluster when none is named: DAGSTER_SLURM_CLUSTER, or one in the cache."""
    named = os.environ.get("DAGSTER_SLURM_CLUSTER")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "dagster-slurm" / "cluster"


@dataclass(frozen=True)
class Cluster(Layout):
    r"""A cluster that is up.

    Example:
        >>> cluster = up(Path("/tmp/lab"))
        >>> cluster.run(["sbatch", "--wrap", "hostname"]).stdout
        'Submitted batch job 1\n'
    """

    @property
    def ssh_port(self) -> int:
        """The port of the sshd, on 127.0.0.1."""
        return self.ports.of("sshd")

    @property
    def profile(self) -> dict[str, Any]:
        """The profile that logs in here and submits to the default partition."""
        profile: dict[str, Any] = yaml.safe_load(render.profile_yaml(self))
        return profile

    def stop_daemon(self, name: str, *, number: signal.Signals = signal.SIGTERM) -> None:
        """End one daemon alone; jobs go on, as they do when a real slurmd dies.

        Args:
            name: Such as ``slurmctld`` or ``slurmd-node1``.
            number: SIGTERM for an orderly end, SIGKILL for a crash.
        """
        identity = daemons.running(daemons.by_name(self, name), self)
        if identity is not None:
            process.send([identity], number)
            process.stop([identity])

    def start_daemon(self, name: str) -> None:
        """Start one daemon and wait until it is ready; nothing happens if it runs."""
        daemon = daemons.by_name(self, name)
        if daemons.running(daemon, self) is None:
            daemons.start([daemon], self)


def up(
    folder: Path | None = None, *, install: bool = True, accounting: bool = True, report: Report = _silent
) -> Cluster:
    """Bring a cluster up: build it, repair it, or find that it is up already.

    Args:
        folder: Where everything goes; see ``default_folder``.
        install: Whether missing Debian packages may be installed.
        accounting: Whether a new cluster keeps accounts; one that is there stays as it is.
        report: Receives a line for each thing that is done.

    Raises:
        ClusterError: It can't be had; the message says what is missing or which log to read.
    """
    folder = check_folder(folder or default_folder())
    _refuse_foreign(folder)
    with folder_lock(folder):
        layout = load_layout(folder)
        if layout is None or not _is_whole(layout):
            ensure_packages(install=install, report=report)
            # Of a cluster of which something runs, ports and isolation are kept.
            if layout is None or not members(layout):
                accounting = layout.accounting if layout else accounting
                ports = choose_ports(folder, _is_free, layout.ports if layout else None)
                layout = new_layout(folder, ports, detect(), accounting=accounting)
            save_layout(layout)
            report("preparing configuration, keys and database")
            prepare(layout)
            _start_all(layout, report)
        return Cluster(**vars(layout))


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with something else in it: ``down`` would remove that too."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ClusterError("is not a folder", where=folder)
    names = set(os.listdir(folder))
    if names - {"lock", NAME + ".new"} and NAME not in names:
        hint = "Name a new or empty folder."
        raise ClusterError("the folder is not empty and holds no cluster", where=folder, hint=hint)


def _is_whole(layout: Layout) -> bool:
    return (
        (not layout.accounting or (layout.folder / "accounts").exists())
        and all(daemons.running(daemon, layout) for daemon in daemons.all_daemons(layout))
        and nodes_are_good(node_states(layout))
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of an earlier daemon that linger in TIME_WAIT don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _start_all(layout: Layout, report: Report) -> None:
    for wave in daemons.waves(layout):
        dead = [daemon for daemon in wave if daemons.running(daemon, layout) is None]
        if dead:
            report(f"starting {', '.join(daemon.name for daemon in dead)}")
            daemons.start(dead, layout)
        if wave[0].name == "slurmdbd":
            _make_accounts(layout, report)
    report("waiting for the nodes")
    _wait_nodes(layout)


def _make_accounts(layout: Layout, report: Report) -> None:
    """Add accounts, limits and the user; the controller must not run yet, or it might miss them."""
    made = layout.folder / "accounts"
    if made.exists():
        return
    report("adding accounts and limits")
    completed = layout.run(["sacctmgr", "-i"], stdin=render.accounting_commands(layout), check=False)
    if completed.returncode != 0 or completed.stderr.strip():
        # What an interrupted attempt has added is an error to some versions: what counts is what is there.
        show = ["sacctmgr", "-n", "-P", "show", "assoc", f"user={layout.user}", "format=account"]
        if not {"lab", "tiny"} <= set(layout.run(show).stdout.split()):
            raise ClusterError(
                f"sacctmgr could not add the accounts:\n{completed.stdout}{completed.stderr}",
                where=layout.log_file("slurmdbd"),
            )
    made.touch()


def _wait_nodes(layout: Layout, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    for node in node_states(layout):
        if node.state.startswith("drain"):
            layout.run(["scontrol", "update", f"NodeName={node.name}", "State=RESUME"], check=False)
    while not nodes_are_good(nodes := node_states(layout)):
        if time.monotonic() > deadline:
            states = ", ".join(f"{node.name}: {node.state}" for node in nodes)
            raise ClusterError(f"nodes are not ready ({states})", where=layout.log)
        time.sleep(0.05)


def status(folder: Path | None = None) -> ClusterStatus:
    """Look at a cluster without changing it; a folder without one is ``down``."""
    folder = check_folder(folder or default_folder())
    layout = load_layout(folder)
    return ClusterStatus(folder, "down") if layout is None else look(layout)


def down(folder: Path | None = None, *, keep: bool = False, report: Report = _silent) -> None:
    """End exactly the processes of a cluster, jobs included, and remove its folder.

    Args:
        folder: Where it lies; see ``default_folder``. Nothing happens if there is no cluster.
        keep: Whether the folder stays, with keys, database and logs, for a later ``up``.
        report: Receives a line for each thing that is done.

    Raises:
        ClusterError: Processes are still there after SIGKILL.
    """
    folder = check_folder(folder or default_folder())
    if not folder.exists():
        return
    _refuse_foreign(folder)
    with folder_lock(folder):
        layout = load_layout(folder)
        if layout is not None:
            if keep:
                report("ending jobs and daemons in order")
                _stop_in_order(layout)
            report("ending what is left")
            _kill_members(layout)
        if not keep:
            report(f"removing {folder}")
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the folder so that at each moment it can be told from a foreign one."""
    last = [folder / NAME, folder / "lock"]
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry not in last:
            entry.unlink()
    for entry in last:
        entry.unlink(missing_ok=True)
    # An `up` that waited for the lock may have made the folder its own by now.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _stop_in_order(layout: Layout) -> None:
    """End jobs and daemons so that queue, accounting and database are found again."""
    if daemons.running(daemons.by_name(layout, "slurmctld"), layout):
        for state in ("PENDING", "RUNNING", "SUSPENDED"):
            layout.run(["scancel", f"--state={state}"], check=False)
        deadline = time.monotonic() + 60
        while job_counts(layout) and time.monotonic() < deadline:
            time.sleep(0.1)
    for wave in reversed(daemons.waves(layout)):
        process.stop([identity for daemon in wave if (identity := daemons.running(daemon, layout))])


def _kill_members(layout: Layout) -> None:
    deadline = time.monotonic() + 60
    # More than once: a daemon may start a process while we look.
    while left := members(layout):
        if time.monotonic() > deadline:
            pids = ", ".join(str(identity.pid) for identity in left)
            raise ClusterError(f"processes don't end: {pids}", where=layout.folder)
        process.send(left, signal.SIGKILL)
        process.wait_gone(left, 1)
