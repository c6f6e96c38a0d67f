"""The text of every configuration file, as pure functions of the layout; most of it lies in ``conf/``."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from slurm_testcluster.layout import CONTROLLER, LOGIN, NODES, Layout, Node

CONF = Path(__file__).with_name("conf")
GPU_TYPE = "a100"
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"


def _filled(name: str, layout: Layout, **values: str) -> str:
    """Fill in a file of ``conf/``; its comments are for those who read it there."""
    lines = (CONF / name).read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("#"))
    ports = {daemon: layout.ports.of(daemon) for daemon in ("sshd", "slurmctld", "slurmdbd")}
    facts = {"folder": layout.folder, "user": layout.user, "address": layout.address, **ports}
    return Template(text).substitute(facts, **values)


def slurm_conf(layout: Layout) -> str:
    """Render slurm.conf: fast scheduling, accounting with limits (if any), preemption, fake GPUs, loopback only."""
    return _filled(
        "slurm.conf",
        layout,
        accounting=_filled("accounting.conf", layout).rstrip() if layout.accounting else NO_ACCOUNTING,
        controller=CONTROLLER if layout.isolated else layout.hostname,
        node_lines="\n".join(_node_line(layout, node) for node in NODES),
        nodes=",".join(node.name for node in NODES),
        gpu_nodes=",".join(node.name for node in NODES if node.gpus),
    )


def _node_line(layout: Layout, node: Node) -> str:
    gpus = f" Gres=gpu:{GPU_TYPE}:{node.gpus} Feature=gpu" if node.gpus else ""
    hostname = node.name if layout.isolated else "localhost"
    return (
        f"NodeName={node.name} NodeHostname={hostname} NodeAddr={layout.address}"
        f" Port={layout.ports.of(node.daemon)}"
        f" Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=8000{gpus}"
    )


def gres_conf(layout: Layout) -> str:
    """Render gres.conf: fake GPUs whose device files are links to /dev/null (regular files are refused)."""
    lines = [
        f"NodeName={node.name} Name=gpu Type={GPU_TYPE} File={layout.folder}/dev/nvidia[0-{node.gpus - 1}]"
        for node in NODES
        if node.gpus
    ]
    return "\n".join(["AutoDetect=off", *lines, ""])


def slurmdbd_conf(layout: Layout) -> str:
    """Render slurmdbd.conf."""
    return _filled("slurmdbd.conf", layout)


def accounting_commands(layout: Layout) -> str:
    """Render what sacctmgr reads from its input: one process instead of one per command."""
    return _filled("sacctmgr.txt", layout)


def sshd_config(layout: Layout, *, use_pam: bool) -> str:
    """Render sshd_config: key login of the one user, where PAM may say no (see ``prepare.account_is_locked``)."""
    return _filled("sshd_config", layout, use_pam="yes" if use_pam else "no")


def known_hosts(layout: Layout, host_public_key: str) -> str:
    """Render known_hosts from the content of the host's public key file."""
    kind, key = host_public_key.split()[:2]
    return f"[127.0.0.1]:{layout.ports.of('sshd')} {kind} {key}\n"


def hosts(machine: str) -> str:
    """Render the /etc/hosts that daemons and jobs see: the machine's own, after the cluster's names.

    Every node's name is 127.0.0.1: slurmd binds to what its host name resolves to, while srun is called
    back on 127.0.0.1. Programs that need one address per node (Ray) use the second names, ``node1-net``.
    """
    names = ["localhost", CONTROLLER, LOGIN, *(node.name for node in NODES)]
    lines = [f"127.0.0.1 {' '.join(names)}"]
    lines += [f"127.0.10.{node.number} {node.name}-net" for node in NODES]
    return "\n".join(lines) + "\n" + machine


def profile_yaml(layout: Layout) -> str:
    """Render the profile that logs in to this cluster and submits to its default partition."""
    # A JSON string is a YAML string; the folder holds nothing that would have to be quoted (see `check_folder`).
    return _filled("profile.yaml", layout, quoted_user=json.dumps(layout.user))
