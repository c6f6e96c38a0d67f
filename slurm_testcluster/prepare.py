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
from slurm_testcluster.errors import ClusterError
from slurm_testcluster.layout import NODES, Layout, write_file
from slurm_testcluster.packages import find_program, slurm_version


def prepare(layout: Layout) -> None:
    """Make everything that must lie in the folder before the first daemon starts."""
    _folders(layout)
    database = _begin_database(layout)
    try:
        _keys(layout)
        _configuration(layout)
        for number in range(max(node.gpus for node in NODES)):
            device = layout.folder / "dev" / f"nvidia{number}"
            if not device.is_symlink():
                device.symlink_to("/dev/null")
    finally:
        if database is not None:
            _finish_database(layout, database)


def _folders(layout: Layout) -> None:
    layout.folder.chmod(0o755)
    nodes = [f"spool/{node.name}" for node in NODES]
    for mode, names in (
        (0o755, ["etc", "run", "log", "spool", "dev", *nodes]),
        (0o700, ["ssh", "work", "tmp", "spool/ctld"]),
    ):
        for name in names:
            (layout.folder / name).mkdir(exist_ok=True)
            (layout.folder / name).chmod(mode)
    if os.getuid() == 0:
        # Debian's sshd, run by root, insists on this folder, which otherwise systemd makes.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def _keys(layout: Layout) -> None:
    munge_key, host_key = layout.etc / "munge.key", layout.key_file.with_name("host_ed25519")
    if not munge_key.exists():
        write_file(munge_key, secrets.token_hex(64), mode=0o600)
    for key, comment in ((host_key, "host"), (layout.key_file, layout.user)):
        if not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            options = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key)]
            argv = [find_program("ssh-keygen"), *options]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    public, host_public = (key.with_suffix(".pub").read_text() for key in (layout.key_file, host_key))
    write_file(layout.key_file.with_name("authorized_keys"), public, mode=0o600)
    write_file(layout.known_hosts_file, render.known_hosts(layout, host_public))


def _configuration(layout: Layout) -> None:
    write_file(layout.slurm_conf, render.slurm_conf(layout))
    write_file(layout.etc / "gres.conf", render.gres_conf(layout))
    # slurmd 24.05 and newer looks for cgroups even if nothing uses them, unless told not to; an older one ends at this.
    if slurm_version() >= (24, 5):
        write_file(layout.etc / "cgroup.conf", "CgroupPlugin=disabled\n")
    write_file(layout.etc / "slurmdbd.conf", render.slurmdbd_conf(layout), mode=0o600)
    use_pam = account_is_locked(layout.user, Path("/etc/shadow"))
    write_file(layout.etc / "sshd_config", render.sshd_config(layout, use_pam=use_pam))
    # Rewritten in place, since running daemons have this very file mounted.
    machine = Path("/etc/hosts")
    layout.hosts.write_text(render.hosts(machine.read_text() if machine.exists() else ""))
    write_file(layout.profile_file, render.profile_yaml(layout))


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


def _begin_database(layout: Layout) -> subprocess.Popen[str] | None:
    """Start the making of an empty database, the slowest step (0.6 s), beside the others."""
    if not layout.accounting or (layout.database / "made").exists():
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
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def _finish_database(layout: Layout, installer: subprocess.Popen[str]) -> None:
    output, _ = installer.communicate()
    if installer.returncode != 0:
        raise ClusterError(f"mariadb-install-db failed:\n{output[-2000:]}", where=layout.database)
    (layout.database / "made").touch()
