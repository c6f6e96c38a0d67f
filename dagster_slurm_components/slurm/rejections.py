"""Why sbatch refused a job: its messages sorted into kinds, with the option concerned."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.replies import UNREACHABLE, messages

# A request may have gone out though its answer didn't come in (nextflow issue 970 and many others). Some of
# these surely mean "not accepted", such as a refused connection or an exceeded rate; they are here because
# the same call may be accepted a moment later, and looking for the job first costs nothing.
AMBIGUOUS: tuple[str, ...] = (
    *UNREACHABLE,
    r"unable to create job record, try again",
    r"slurm internal error",
)
"""Patterns, case ignored, of what sbatch writes to stderr when the job may exist nevertheless."""


@dataclass(frozen=True)
class Rejection:
    """Why a job was refused.

    Attributes:
        kind: ``permanent``: the same job will be refused again. ``limit``: nothing is wrong with the job, it
            may be accepted later. ``unknown``: sbatch gave no reason that is known here.
        option: The resource option concerned, by its name in YAML (``cpus_per_task``), or ``None``.
        message: What sbatch, or the site's own plugin, said.
        hint: What the user can do; may be empty.
    """

    kind: Literal["permanent", "limit", "unknown"]
    option: str | None
    message: str
    hint: str = ""


_Kind = Literal["permanent", "limit"]

# The texts are slurm_strerror()'s (src/common/slurm_errno.c) and sbatch's own. First match wins.
_RULES: tuple[tuple[str, _Kind, str | None, str], ...] = (
    (r"job queue full|MaxJobCount limit reached", "limit", None, "The cluster's queue is full."),
    (
        r"submissions? (?:are )?disabled|presently disabled",
        "limit",
        None,
        "The site has closed the queue for now.",
    ),
    (r"user's group not permitted", "permanent", "partition", "Your groups may not use this partition."),
    (
        r"account/partition combination",
        "permanent",
        "account",
        "`sacctmgr show assoc user=$USER` lists your accounts.",
    ),
    (r"invalid account|invalid parent account", "permanent", "account", ""),
    (r"multiple partition job request", "permanent", "partition", "Name one partition only."),
    (
        r"invalid qos",
        "permanent",
        "qos",
        "`sacctmgr show assoc user=$USER format=account,qos` lists what you may use.",
    ),
    (
        r"invalid partition|partition in down state",
        "permanent",
        "partition",
        "`sinfo -s` lists the partitions.",
    ),
    (r"no partition specified", "permanent", "partition", "This cluster has no default partition: name one."),
    (r"requested nodes not in this partition", "permanent", "nodelist", ""),
    (r"partition not available|partition configuration not available", "permanent", "partition", ""),
    (
        r"invalid reservation|requested reservation|access denied to requested reservation",
        "permanent",
        "reservation",
        "",
    ),
    (r"maintenance reservation", "permanent", "reservation", ""),
    (r"time-?min", "permanent", "time_min", ""),
    (
        r"time limit specification required|missing time limit",
        "permanent",
        "time",
        "This cluster demands `time`.",
    ),
    (
        r"(?:requested )?time limit (?:is )?invalid|invalid time ?limit|invalid --time",
        "permanent",
        "time",
        "",
    ),
    (r"invalid time specified|invalid time value", "permanent", "begin", ""),
    (
        r"mutually exclusive.*--mem|--mem.*mutually exclusive",
        "permanent",
        "mem",
        "Set only one of the three.",
    ),
    (r"memory specification|memory required by task|invalid memory|--mem-per", "permanent", "mem", ""),
    (r"multiple KNL|invalid KNL|(?:preferred )?feature specification", "permanent", "constraint", ""),
    (r"--batch option", "permanent", "batch", ""),
    (
        r"\bgres\b|generic resource|RestrictedCoresPerGPU|--gpu",
        "permanent",
        "gres",
        "`sinfo -o '%P %G'` lists them.",
    ),
    (r"trackable resource", "permanent", "gres", ""),
    (r"invalid license|licenses? currently", "permanent", "licenses", ""),
    (r"invalid wckey", "permanent", "wckey", ""),
    (r"invalid job array", "permanent", "array", ""),
    (r"--nice\b", "permanent", "nice", ""),
    (r"dependency", "permanent", "dependency", ""),
    (r"burst buffer", "permanent", "bb", ""),
    (r"invalid node name|invalid host", "permanent", "nodelist", "Look at `exclude` too."),
    (r"threads per core", "permanent", "threads_per_core", ""),
    (r"task count specification", "permanent", "ntasks", ""),
    (r"task distribution", "permanent", "distribution", ""),
    (
        r"cpu count (?:specification|per node)|more processors requested|more tasks than",
        "permanent",
        "cpus_per_task",
        "",
    ),
    (
        r"cluster (?:feature|name)|no cluster|can't get (?:cluster )?address of cluster",
        "permanent",
        "clusters",
        "",
    ),
    (r"node count|job size specification", "permanent", "nodes", ""),
    (
        r"requested node configuration is not available",
        "permanent",
        None,
        "No node of the partition has that many CPUs or GPUs, or that much memory: see `sinfo -Nel`.",
    ),
    (r"usage threshold", "limit", "qos", ""),
    (r"pathname of a file.* too long", "permanent", None, "The job script, or a value in it, is too long."),
    (r"no such file|unable to open file|script .*(?:dos|line breaks|interpreter)", "permanent", None, ""),
    (
        r"access/permission denied|invalid user id|invalid group id",
        "permanent",
        None,
        "Ask the site for access.",
    ),
    (r"not supported on this system|only batch jobs|X11 forwarding", "permanent", None, ""),
    (
        r"too many (?:queued |running |submitted )?jobs|job submit limit|submitted jobs? limit",
        "limit",
        None,
        "",
    ),
)
_GENERIC = re.compile(
    r"job violates accounting/qos policy|unspecified error|generic error|no error", re.IGNORECASE
)
_FAILED = re.compile(r"^(?:batch )?job submission failed:\s*", re.IGNORECASE)
_NOISE = re.compile(r"^(?:try \"?sbatch|usage:|see '?man)", re.IGNORECASE)
_LIMIT_NAME = re.compile(r"\b(?:Assoc|QOS|Max|Grp)[A-Za-z]{4,60}\b")
_OPTION = re.compile(r"(?<![\w-])--(?P<name>[a-z][a-z0-9_-]*)")
_WORDS = (
    "partition",
    "account",
    "qos",
    "reservation",
    "constraint",
    "gres",
    "gpus",
    "time",
    "mem",
    "nodes",
    "ntasks",
)


def classify_rejection(err: str) -> Rejection:
    """Sort what sbatch wrote to stderr when it refused a job. Never raises.

    A site's own words (its ``job_submit`` plugin's) come before Slurm's "Unspecified error" and are the
    message then.
    """
    lines = [line for line in messages(err) if not _NOISE.search(line)]
    final = next((_FAILED.sub("", line) for line in lines if _FAILED.search(line)), "")
    said = [line for line in lines if not _FAILED.search(line)]
    named = _named_limit(lines)
    if named is not None:
        return named
    if final and not _GENERIC.search(final):
        return _by_rules([final, *said], "\n".join([*said, final]))
    if said:
        # With a "submission failed" line these are the site's plugin's words, without it sbatch's own.
        return _by_rules(said, "\n".join(said))
    if "job submit limit" in final:
        hint = "Slurm does not say which: too many jobs, or one too large or too long for its account or QOS."
        return Rejection("unknown", None, final, hint)
    return Rejection("unknown", None, final or err.strip(), "")


def _named_limit(lines: list[str]) -> Rejection | None:
    """Recognise a limit that Slurm names, such as ``QOSMaxSubmitJobPerUserLimit``, in a line of its own."""
    for line in lines:
        match = _LIMIT_NAME.fullmatch(line.strip()) or re.fullmatch(r"(?:sbatch|lua): (\w+)", line)
        reason = explain(match[match.lastindex or 0]) if match else None
        if reason is not None and reason.known:
            kind: _Kind = "permanent" if reason.permanence == "never" else "limit"
            return Rejection(kind, reason.option, f"{reason.name}: {reason.text}")
    return None


def _by_rules(texts: list[str], message: str) -> Rejection:
    """Find the first line that names an option, or else the first that is known at all."""
    found = [rejection for text in texts if (rejection := _by_rule(text, message)) is not None]
    naming = [rejection for rejection in found if rejection.option is not None]
    if naming or found:
        return (naming or found)[0]
    words = [word for word in _WORDS if re.search(rf"\b{word}", " ".join(texts), re.IGNORECASE)]
    return Rejection("permanent", words[0] if len(words) == 1 else None, message)


def _by_rule(text: str, message: str) -> Rejection | None:
    spelled_out = _OPTION.search(text)
    option = spelled_out["name"].replace("-", "_") if spelled_out else None
    for pattern, kind, usual, hint in _RULES:
        if re.search(pattern, text, re.IGNORECASE):
            # A rule knows the family (gres); the message may spell out the member (gpus_per_task).
            if option is None or "mutually exclusive" in text:
                option = usual
            return Rejection(kind, option, message, hint if option == usual else "")
    return Rejection("permanent", option, message) if option else None
