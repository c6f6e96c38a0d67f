"""Lay out a cluster's folder: configuration, keys, the fake devices and the empty database.

Each step looks whether its result is there already, so that a half-made folder is completed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from slurm_testcluster import render
from slurm_testcluster.layout import NODES, ClusterError, Layout
from slurm_testcluster.packages import find_program
from slurm_testcluster.state import write_file


def prepare(layout: Layout) -> None:
    """Make everything that must lie in the folder before the first daemon starts."""
    _folders(layout)
    database = _begin_database(layout)
    try:
        _keys(layout)
        _configuration(layout)
        _devices(layout)
    finally:
        _finish_database(layout, database)


def _folders(layout: Layout) -> None:
    layout.folder.chmod(0o755)
    open_folders = [layout.etc, layout.run, layout.log, layout.spool, layout.devices]
    open_folders += [layout.spool / node.name for node in NODES]
    for folder in open_folders:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    for folder in (layout.ssh, layout.work, layout.database_tmp, layout.spool / "ctld"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
    if os.getuid() == 0:
        # Debian's sshd, run by root, insists on this folder, which otherwise systemd makes.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def _keys(layout: Layout) -> None:
    munge_key = layout.etc / "munge.key"
    if not munge_key.exists():
        write_file(munge_key, secrets.token_hex(64), mode=0o600)
    for key, comment in ((layout.host_key_file, "host"), (layout.key_file, layout.user)):
        if not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            argv = [
                find_program("ssh-keygen"),
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                comment,
                "-f",
                str(key),
            ]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    write_file(layout.ssh / "authorized_keys", layout.key_file.with_suffix(".pub").read_text(), mode=0o600)
    host_key = layout.host_key_file.with_suffix(".pub").read_text()
    write_file(layout.known_hosts_file, render.known_hosts(layout, host_key))


def _configuration(layout: Layout) -> None:
    write_file(layout.slurm_conf, render.slurm_conf(layout))
    write_file(layout.etc / "gres.conf", render.gres_conf(layout))
    write_file(layout.etc / "slurmdbd.conf", render.slurmdbd_conf(layout), mode=0o600)
    sshd_config = render.sshd_config(layout, use_pam=account_is_locked(layout.user, Path("/etc/shadow")))
    write_file(layout.etc / "sshd_config", sshd_config)
    write_hosts(layout)
    write_file(layout.folder / "profile.yaml", render.profile_yaml(render.profile(layout)))


def write_hosts(layout: Layout) -> None:
    """Write the hosts file; rewritten in place, since running daemons have this very file mounted."""
    layout.etc.mkdir(exist_ok=True)
    machine = Path("/etc/hosts")
    layout.hosts.write_text(render.hosts(layout, machine.read_text() if machine.exists() else ""))


def account_is_locked(user: str, shadow: Path) -> bool:
    """Whether sshd without PAM would turn the user away because of a locked password.

    Cloud images lock passwords with a leading ``!``; sshd then refuses keys too, unless PAM decides
    (sshd_config(5), UsePAM). Only root can read the file, and sshd checks it only when root runs it.
    """
    try:
        entries = shadow.read_text().splitlines()
    except OSError:
        return False
    return any(entry.startswith(f"{user}:!") for entry in entries)


def _devices(layout: Layout) -> None:
    for number in range(max(node.gpus for node in NODES)):
        device = layout.devices / f"nvidia{number}"
        if not device.is_symlink():
            device.symlink_to("/dev/null")


def _begin_database(layout: Layout) -> subprocess.Popen[str] | None:
    """Start the making of an empty database, the slowest step (0.6 s), beside the others."""
    if (layout.database / "made").exists():
        return None
    shutil.rmtree(layout.database, ignore_errors=True)
    layout.database.mkdir(mode=0o700)
    argv = [
        find_program("mariadb-install-db"),
        "--no-defaults",
        f"--user={layout.user}",
        f"--datadir={layout.database}",
        f"--tmpdir={layout.database_tmp}",
        # The database knows its one user by the Unix user at the other end of the socket.
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={layout.user}",
        "--skip-test-db",
        "--innodb-log-file-size=16M",
    ]
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish_database(layout: Layout, process: subprocess.Popen[str] | None) -> None:
    if process is None:
        return
    output, _ = process.communicate()
    if process.returncode != 0:
        raise ClusterError(f"mariadb-install-db failed:\n{output[-2000:]}", where=str(layout.database))
    (layout.database / "made").touch()
