"""Why a job waits: Slurm's pending reasons in plain words, and what a user can change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Permanence = Literal["wait", "held", "never"]


@dataclass(frozen=True)
class Reason:
    """One pending reason.

    Attributes:
        name: Slurm's word for it.
        text: The same in plain words, with the details Slurm added.
        permanence: ``wait``: time heals it. ``held``: nothing happens until a person acts, the user or an
            administrator. ``never``: this job, as it was submitted, will not start.
        option: The resource option a user would change, by its name in YAML (``cpus_per_task``), or ``None``.
        known: Whether the reason is explained here, or only passed through.
    """

    name: str
    text: str
    permanence: Permanence
    option: str | None = None
    known: bool = True


_Row = tuple[Permanence, "str | None", str]

_TABLE: dict[str, _Row] = {
    # the usual course of things
    "None": ("wait", None, "Slurm has not looked at the job yet."),
    "Priority": ("wait", None, "Jobs of higher priority come first."),
    "Resources": ("wait", None, "The job is next and waits until the nodes it needs become free."),
    "Dependency": ("wait", "dependency", "The job waits for the jobs it depends on."),
    "BeginTime": (
        "wait",
        "begin",
        "The job's earliest start time has not come; after a requeue that is minutes.",
    ),
    "JobArrayTaskLimit": ("wait", "array", "As many tasks of the array run as its % limit allows."),
    "Licenses": ("wait", "licenses", "The job waits for a free license."),
    "Reservation": ("wait", "reservation", "The job waits until its reservation begins or has room."),
    "Prolog": ("wait", None, "The site's prolog is still preparing the nodes."),
    "Cleaning": ("wait", None, "The job was requeued and its last start is still being cleaned up."),
    "SchedDefer": ("wait", None, "The site defers scheduling; the job is looked at in the next cycle."),
    "FedJobLock": ("wait", None, "The clusters of the federation are agreeing on where the job runs."),
    "BurstBufferResources": ("wait", "bb", "The job waits for space in the burst buffer."),
    "BurstBufferStageIn": ("wait", "bb", "The burst buffer is copying the job's files in."),
    "NvidiaImexChannels": ("wait", None, "The job waits for a free NVIDIA IMEX channel."),
    "MpiPortsBusy": ("wait", None, "The ports that MPI needs are in use on the nodes."),
    "MaxPoweredUpNodes": ("wait", None, "As many nodes are powered up as the site allows."),
    "PowerNotAvail": ("wait", None, "Not enough electric power is available for the job's nodes."),
    "PowerReserved": ("wait", None, "The electric power that the job needs is reserved."),
    "QOSUsageThreshold": (
        "wait",
        "qos",
        "The account has used more than the QOS's threshold allows for now.",
    ),
    # nodes and partitions
    "ReqNodeNotAvail": (
        "wait",
        None,
        "A node the job needs is down, drained, or reserved, for instance for maintenance. "
        "If a maintenance is near, a shorter `time` may still fit before it.",
    ),
    "NodesUnavailable": (
        "wait",
        None,
        "Nodes the job needs are down, drained or reserved for jobs in partitions of higher priority.",
    ),
    "NodeDown": ("wait", "nodelist", "A node the job needs is down."),
    "FrontEndDown": ("wait", None, "No front end node is available to start the job."),
    "PartitionDown": (
        "held",
        "partition",
        "The partition starts no jobs until an administrator opens it again.",
    ),
    "PartitionInactive": (
        "held",
        "partition",
        "The partition is inactive until an administrator opens it again.",
    ),
    "PartitionTimeLimit": ("never", "time", "The job asks for more time than the partition allows."),
    "PartitionNodeLimit": (
        "held",
        "nodes",
        "The job asks for more or fewer nodes than the partition allows, or too few of its nodes are up.",
    ),
    "PartitionConfig": (
        "held",
        "partition",
        "The job doesn't fit the partition's settings: accounts, groups, QOS, limits on time and nodes.",
    ),
    "MaxMemPerLimit": (
        "never",
        "mem",
        "The job asks for more memory per node or CPU than the partition allows.",
    ),
    "BadConstraints": ("never", "constraint", "No node can ever fulfil what the job asks for."),
    "Constraints": ("wait", "constraint", "No node with the asked-for features is available."),
    # held
    "JobHeldUser": ("held", None, "The job is held by its user. Release it with `scontrol release JOBID`."),
    "JobHeldAdmin": ("held", None, "An administrator holds the job; only an administrator can release it."),
    "JobHoldMaxRequeue": (
        "held",
        None,
        "The job was requeued as often as the site allows and is held. It can't be launched for some reason.",
    ),
    "LaunchFailedRequeuedHeld": (
        "held",
        None,
        "Slurm could not launch the job (bad prolog or node) and holds it. Release it, or cancel it.",
    ),
    "UserEnvRetrievalFailed": (
        "held",
        None,
        "Slurm could not load the user's environment and holds the job. Look for a slow or failing .bashrc.",
    ),
    "RequeuedInHeldState": ("held", None, "The job was requeued and is held. Release it, or cancel it."),
    "SystemFailure": ("held", None, "Slurm, a file system or the network failed while the job was started."),
    "BurstBufferOperation": ("held", "bb", "An operation of the burst buffer failed."),
    # never
    "DependencyNeverSatisfied": (
        "never",
        "dependency",
        "A job that this one depends on did not end as the dependency asks for.",
    ),
    "InvalidAccount": ("never", "account", "The job's account is not valid (any more)."),
    "AccountNotAllowed": ("never", "account", "The job's account may not use this partition."),
    "InvalidQOS": ("never", "qos", "The job's QOS is not valid (any more)."),
    "QOSNotAllowed": ("never", "qos", "The job's QOS may not be used in this partition."),
    "ReservationDeleted": ("never", "reservation", "The job's reservation was deleted."),
    "ReservationInvalid": ("never", "reservation", "The job's reservation is not valid (any more)."),
    "DeadLine": ("never", "deadline", "The job can not end before its deadline."),
    # general limits
    "AccountingPolicy": ("wait", None, "A limit of the account or QOS does not allow the job now."),
    "AssociationJobLimit": ("wait", "account", "The account has as many jobs as it may have."),
    "AssociationResourceLimit": ("wait", "account", "The account's limit of resources is reached."),
    "AssociationTimeLimit": ("wait", "account", "The account's limit of time is reached."),
    "QOSJobLimit": ("wait", "qos", "The QOS has as many jobs as it may have."),
    "QOSResourceLimit": ("wait", "qos", "The QOS's limit of resources is reached."),
    "QOSTimeLimit": ("wait", "qos", "The QOS's limit of time is reached."),
    "QOSMinCpuNotSatisfied": ("never", "ntasks", "The job asks for fewer CPUs than the QOS demands."),
    "AssocMaxJobsLimit": ("wait", "account", "As many jobs of this user and account run as may run at once."),
    "QOSMaxJobsPerUserLimit": (
        "wait",
        "qos",
        "As many of your jobs run as the QOS lets one user run at once.",
    ),
    "MaxJobsPerAccount": ("wait", "account", "As many jobs of the account run as may run at once."),
    "AssocMaxSubmitJobLimit": (
        "wait",
        "account",
        "As many jobs of this user and account are queued as may be.",
    ),
    "QOSMaxSubmitJobPerUserLimit": (
        "wait",
        "qos",
        "As many of your jobs are queued as the QOS lets one user queue.",
    ),
    "MaxSubmitJobsPerAccount": ("wait", "account", "As many jobs of the account are queued as may be."),
    # words that squeue shows for jobs that are over
    "NonZeroExitCode": ("wait", None, "The job ended with an exit code other than 0."),
    "JobLaunchFailure": ("wait", None, "The job could not be launched, or was ended by a signal."),
    "RaisedSignal": ("wait", None, "The job was ended by a signal."),
    "TimeLimit": ("wait", "time", "The job reached its time limit."),
    "OutOfMemory": ("wait", "mem", "The job used more memory than it asked for."),
    "InactiveLimit": ("wait", None, "The job was idle for longer than the site allows."),
}

# Slurm writes some reasons as sentences (job_ptr->state_desc in slurmctld), with underscores for spaces in
# some versions.
_PHRASES = {
    "nodes required for job": "NodesUnavailable",
    "launch failed requeued held": "LaunchFailedRequeuedHeld",
    "user env retrieval failed": "UserEnvRetrievalFailed",
    "job requeued in held state": "RequeuedInHeldState",
    "job's account not permitted": "AccountNotAllowed",
    "job's qos not permitted": "QOSNotAllowed",
    "job's group not permitted": "PartitionConfig",
    "job is at or exceeds qos": "QOSResourceLimit",
    "job is at or exceeds association": "AssociationResourceLimit",
}

# The rest, about 130, are limits named by a scheme: whose, which kind, of what, counted how.
_LIMIT = re.compile(
    r"(?P<whose>Assoc|QOS|)(?P<kind>Grp|Max|Min)"
    r"(?P<what>Billing|BB|Cpu|CPU|Energy|GRES|Jobs|License|Memory|Mem|Node|SubmitJobs?|Unknown|Wall(?:Duration)?)"
    r"(?P<minutes>Minutes|RunMinutes|RunMins|)(?P<per>PerJob|PerNode|PerUser|PerAccount|)(?:Limit)?"
)
_WHAT = {
    "Billing": ("billed resources", None),
    "BB": ("burst buffer space", "bb"),
    "Cpu": ("CPUs", "ntasks"),
    "CPU": ("CPUs", "ntasks"),
    "Energy": ("energy", None),
    "GRES": ("GPUs or other generic resources", "gres"),
    "Jobs": ("running jobs", None),
    "License": ("licenses", "licenses"),
    "Memory": ("memory", "mem"),
    "Mem": ("memory", "mem"),
    "Node": ("nodes", "nodes"),
    "SubmitJob": ("queued jobs", None),
    "SubmitJobs": ("queued jobs", None),
    "Unknown": ("a resource of the site's own", None),
    "Wall": ("time", "time"),
    "WallDuration": ("time", "time"),
}


def explain(reason: str) -> Reason:
    """Explain a pending reason, as squeue's or scontrol's ``Reason``. Never raises.

    Details after the name (``ReqNodeNotAvail, UnavailableNodes:node[1-3]``) are kept. An unknown reason, such
    as a site's own, is passed through as it is and taken for ``wait``.
    """
    written = reason.strip()
    if written.startswith("(") and written.endswith(")"):
        written = written[1:-1]
    spaced = written.replace("_", " ").strip()
    for phrase, meaning in _PHRASES.items():
        if spaced.lower().startswith(phrase):
            details = spaced if "exceeds" in phrase else spaced.partition("(")[2].removesuffix(")")
            return _of_table(meaning, details)
    match = re.match(r"[A-Za-z]+(?=$|[,:(])", written)
    name = match[0] if match else ""
    details = written[len(name) :].strip(" ,:_")
    if name in _TABLE:
        return _of_table(name, details)
    limit = _LIMIT.fullmatch(name)
    if limit is not None:
        return _of_limit(name, limit, details)
    return Reason(
        written, f"Slurm says: {written}" if written else "Slurm gives no reason.", "wait", known=False
    )


def _of_table(name: str, details: str) -> Reason:
    permanence, option, text = _TABLE[name]
    return Reason(name, _with_details(text, details), permanence, option)


def _of_limit(name: str, limit: re.Match[str], details: str) -> Reason:
    """Put a limit's name into words.

    A limit on one job alone is ``never``: the job breaks it by itself, and only another job, or an
    administrator, changes that. A limit that other jobs share is ``wait``.
    """
    whose = {"Assoc": "account", "QOS": "QOS", "": "account or QOS"}[limit["whose"]]
    what, option = _WHAT[limit["what"]]
    counted = {"": what, "Minutes": f"{what} times minutes"}.get(
        limit["minutes"], f"{what} times minutes still to run"
    )
    alone = limit["per"] in ("PerJob", "PerNode") or limit["kind"] == "Min" or limit["what"] == "WallDuration"
    owner = {"Assoc": "account", "QOS": "qos", "": None}[limit["whose"]]
    used_up = limit["kind"] == "Grp" and limit["minutes"] == "Minutes"
    if used_up or option is None:
        option = owner
    elif alone and limit["minutes"]:
        option = "time"
    if limit["kind"] == "Min":
        text = f"The job asks for less than the {whose} demands: {counted}."
    elif alone:
        scope = " on one node" if limit["per"] == "PerNode" else ""
        text = f"The job asks for more{scope} than the {whose} allows one job: {counted}."
    elif used_up:
        text = f"The budget of the {whose} is used up, or the job would exceed it: {counted}."
    else:
        who = {"PerUser": "one user", "PerAccount": "one account"}.get(limit["per"], "all its jobs together")
        text = f"The {whose} allows {who} no more at once: {counted}."
    return Reason(name, _with_details(text, details), "never" if alone else "wait", option)


def _with_details(text: str, details: str) -> str:
    details = details.strip(" ,:")
    if details.startswith("(") and details.endswith(")"):
        details = details[1:-1]
    return f"{text} ({details})" if details else text
