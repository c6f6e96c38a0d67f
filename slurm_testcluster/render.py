"""The text of every configuration file, as pure functions of the layout."""

from __future__ import annotations

import json
from collections.abc import Mapping

from slurm_testcluster.layout import CLUSTER_NAME, CONTROLLER, LOGIN, NODES, Layout, Node

GPU_TYPE = "a100"


def slurm_conf(layout: Layout) -> str:
    """Render slurm.conf: fast scheduling, accounting with limits, preemption, fake GPUs, loopback only."""
    controller = CONTROLLER if layout.isolated else layout.hostname
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={controller}({layout.address})",
        f"SlurmctldPort={layout.ports.slurmctld}",
        f"SlurmUser={layout.user}",
        f"SlurmdUser={layout.user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket},cred_expire=10",
        # Bind to what the host name resolves to (loopback, by our own hosts file) and not to every interface.
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
        f"StateSaveLocation={layout.spool}/ctld",
        f"SlurmdSpoolDir={layout.spool}/%n",
        f"SlurmctldPidFile={layout.run}/slurmctld.self",
        f"SlurmdPidFile={layout.run}/slurmd-%n.self",
        "MailProg=/bin/true",
        # No cgroups and no privileges: processes are tracked through /proc.
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        # A login's limits are not those of the daemons, and an ordinary user can't raise them.
        "PropagateResourceLimits=NONE",
        # The nodes promise more cores and memory than the machine has.
        "SlurmdParameters=config_overrides",
        "ReturnToService=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,"
        "default_queue_depth=10000,bf_interval=1,bf_continue,max_rpc_cnt=0",
        "PriorityType=priority/multifactor",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "JobRequeue=1",
        "MaxArraySize=1001",
        "DefMemPerCPU=200",
        "GresTypes=gpu",
        "KillWait=5",
        "MinJobAge=60",
        "SlurmdTimeout=10",
        "MessageTimeout=10",
        "CompleteWait=0",
        "EpilogMsgTime=1",
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={layout.address}",
        f"AccountingStoragePort={layout.ports.slurmdbd}",
        # Clients take the munge socket for slurmdbd from here and not from AuthInfo (Slurm 22.05).
        f"AccountingStoragePass={layout.munge_socket}",
        "AccountingStorageEnforce=associations,limits,qos",
        "AccountingStorageTRES=gres/gpu",
        "AccountingStoreFlags=job_comment,job_script,job_env",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=1",
        "JobAcctGatherParams=OverMemoryKill",
        "",
        *(_node_line(layout, node) for node in NODES),
        "",
        *_partition_lines(),
    ]
    return "\n".join(lines) + "\n"


def _node_line(layout: Layout, node: Node) -> str:
    gpus = f" Gres=gpu:{GPU_TYPE}:{node.gpus} Feature=gpu" if node.gpus else ""
    hostname = node.name if layout.isolated else "localhost"
    return (
        f"NodeName={node.name} NodeHostname={hostname} NodeAddr={layout.address}"
        f" Port={layout.ports.slurmd(node)}"
        f" Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=8000{gpus}"
    )


def _partition_lines() -> list[str]:
    all_nodes = ",".join(node.name for node in NODES)
    gpu_nodes = ",".join(node.name for node in NODES if node.gpus)
    common = "MaxTime=1-00:00:00 DefaultTime=00:10:00"
    middle = "PriorityTier=10 PreemptMode=OFF"
    return [
        f"PartitionName=debug Nodes={all_nodes} Default=YES {common} {middle}",
        f"PartitionName=gpu Nodes={gpu_nodes} {common} {middle}",
        f"PartitionName=preempt Nodes={all_nodes} {common} PriorityTier=1 PreemptMode=REQUEUE",
        f"PartitionName=spot Nodes={all_nodes} {common} PriorityTier=1 PreemptMode=CANCEL GraceTime=3",
        f"PartitionName=high Nodes={all_nodes} {common} PriorityTier=100 PreemptMode=OFF",
        f"PartitionName=closed Nodes={all_nodes} {common} AllowAccounts=nobody {middle}",
        f"PartitionName=down Nodes={all_nodes} {common} State=DOWN {middle}",
    ]


def gres_conf(layout: Layout) -> str:
    """Render gres.conf: fake GPUs whose device files are links to /dev/null (regular files are refused)."""
    lines = ["AutoDetect=off"]
    for node in NODES:
        if node.gpus:
            files = f"{layout.devices}/nvidia[0-{node.gpus - 1}]"
            lines.append(f"NodeName={node.name} Name=gpu Type={GPU_TYPE} File={files}")
    return "\n".join(lines) + "\n"


def slurmdbd_conf(layout: Layout) -> str:
    """Render slurmdbd.conf; the database knows us by our Unix user, so there is no password."""
    return "\n".join(
        [
            "DbdHost=localhost",
            f"DbdAddr={layout.address}",
            f"DbdPort={layout.ports.slurmdbd}",
            f"SlurmUser={layout.user}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={layout.munge_socket}",
            "CommunicationParameters=NoInAddrAny",
            f"PidFile={layout.run}/slurmdbd.self",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            f"StorageUser={layout.user}",
            "StorageLoc=slurm_acct_db",
            "",
        ]
    )


def accounting_commands(layout: Layout) -> str:
    """Render what sacctmgr reads from its input: one process instead of one per command."""
    return "\n".join(
        [
            f"add cluster {CLUSTER_NAME}",
            "add qos limited set MaxSubmitJobsPerUser=2 MaxJobsPerUser=1",
            f"add account lab,tiny cluster={CLUSTER_NAME} set qos=normal,limited defaultqos=normal",
            f"add user {layout.user} account=lab,tiny defaultaccount=lab adminlevel=admin",
            "quit",
            "",
        ]
    )


def sshd_config(layout: Layout, *, use_pam: bool) -> str:
    """Render sshd_config: key login of the one user, loopback only.

    Args:
        layout: The cluster.
        use_pam: Whether PAM decides if the account may log in (see ``prepare.account_is_locked``).
    """
    return "\n".join(
        [
            f"Port {layout.ports.sshd}",
            "ListenAddress 127.0.0.1",
            f"HostKey {layout.host_key_file}",
            "PidFile none",
            f"AuthorizedKeysFile {layout.ssh}/authorized_keys",
            f"AllowUsers {layout.user}",
            "PermitRootLogin prohibit-password",
            "AuthenticationMethods publickey",
            "PubkeyAuthentication yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            f"UsePAM {'yes' if use_pam else 'no'}",
            # The keys lie in the cluster's folder, whose parents may be writable by others (/tmp).
            "StrictModes no",
            "MaxSessions 10",
            "MaxStartups 100:30:200",
            "UseDNS no",
            "PrintMotd no",
            f"SetEnv SLURM_CONF={layout.slurm_conf}",
            "Subsystem sftp internal-sftp",
            "",
        ]
    )


def known_hosts(layout: Layout, host_public_key: str) -> str:
    """Render known_hosts from the content of the host's public key file."""
    kind, key = host_public_key.split()[:2]
    return f"[127.0.0.1]:{layout.ports.sshd} {kind} {key}\n"


def hosts(layout: Layout, machine: str) -> str:
    """Render the /etc/hosts that daemons and jobs see: the machine's own, after the cluster's names.

    Every node's name is 127.0.0.1: slurmd binds to what its host name resolves to, while srun is called
    back on 127.0.0.1. Programs that need one address per node (Ray) use the second names, ``node1-net``.

    Args:
        layout: The cluster.
        machine: The content of the machine's /etc/hosts.
    """
    names = ["localhost", CONTROLLER, LOGIN, *(node.name for node in NODES)]
    lines = [f"127.0.0.1 {' '.join(names)}"]
    lines += [f"127.0.10.{node.number} {node.name}-net" for node in NODES]
    return "\n".join(lines) + "\n" + machine


def profile_yaml(profile: Mapping[str, object]) -> str:
    """Render the profile as YAML.

    Args:
        profile: Strings, numbers, and mappings of these.
    """
    lines = []
    for key, value in profile.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {inner}: {_scalar(content)}" for inner, content in value.items())]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _scalar(value: object) -> str:
    # A JSON string is a YAML string; quotes are left out only where nothing could be misread.
    plain = isinstance(value, str) and (value in ("ssh", "slurm", "debug") or value.startswith("/"))
    return str(value) if plain else json.dumps(value)


def profile(layout: Layout) -> dict[str, object]:
    """Build the ready profile that logs in to this cluster and submits to its default partition."""
    return {
        "host": {
            "type": "ssh",
            "hostname": "127.0.0.1",
            "port": layout.ports.sshd,
            "user": layout.user,
            "key_file": str(layout.key_file),
            "known_hosts_file": str(layout.known_hosts_file),
        },
        "scheduler": "slurm",
        "workdir": str(layout.work),
        "resources": {"partition": "debug"},
    }
