"""Does Slurm work there, and would it take the profile's jobs?"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from dagster_slurm_components.doctor import slurm_facts
from dagster_slurm_components.doctor.findings import Finding, failed, note, ok, skipped, warning
from dagster_slurm_components.doctor.slurm_facts import Association, Partition, limit, members, number
from dagster_slurm_components.errors import SatelliteError
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.satellite.calls import HostFacts
from dagster_slurm_components.slurm.header import command_line
from dagster_slurm_components.slurm.rejections import classify_rejection
from dagster_slurm_components.slurm.replies import query_failure
from dagster_slurm_components.spec.problems import nearest
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import time_seconds

NEEDED = ("sbatch", "squeue", "scancel", "scontrol")
USED = ("sacct", "sacctmgr", "sinfo")
OLDEST = (20, 2)
"""`squeue --me` exists since Slurm 20.02."""
SLURM = (
    *("slurm_clients", "slurm_version", "controller", "accounting", "association", "partition"),
    "submission",
)
"""The checks of a cluster."""


def ask(satellite: Satellite, argv: Sequence[str]) -> tuple[str, str | None]:
    """Ask one of Slurm's programs; return what it wrote, and why that does not count, if it does not."""
    try:
        done = satellite.run(list(argv), timeout=30)
    except SatelliteError as error:
        return "", error.message
    out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return out, query_failure(None if done.timed_out else done.returncode, out, err)


def check_slurm(satellite: Satellite, resources: Resources, facts: HostFacts) -> Iterator[Finding]:
    """Check clients, controller, accounting, and the ``resources`` that jobs ask for when their scripts add nothing.

    Some failures end it early.
    """
    missing = [name for name in (*NEEDED, *USED) if not _is_installed(satellite, name)]
    if set(missing) & set(NEEDED):
        advice = "Is this a login node? Slurm's programs must be on the PATH of `ssh HOST command`, or of login shells."
        yield failed("slurm_clients", f"there is no {_quoted(missing)}", advice)
        return
    if missing:
        yield warning("slurm_clients", f"there is no {_quoted(missing)}", "Ask the site for them.")
    else:
        yield ok("slurm_clients", ", ".join((*NEEDED, *USED)))
    yield _version(ask(satellite, ("sbatch", "--version"))[0].strip())
    out, failure = ask(satellite, slurm_facts.CONFIG)
    if failure is not None:
        advice = "Ask the site: slurmctld is down, or can't be reached from this host."
        yield failed("controller", f"Slurm's controller does not answer: {failure}", advice)
        return
    config = slurm_facts.parse_config(out)
    yield ok("controller", f"cluster {config.get('ClusterName', '?')} answers")
    yield from _accounting(satellite, config, resources, facts.user)
    yield from _partition(satellite, resources)
    yield _submission(satellite, resources)


def _version(text: str) -> Finding:
    match = re.search(r"(\d+)\.(\d+)(?:\.\d+)?", text)
    if match is None:
        return note("slurm_version", f"sbatch says {text!r}", "Is it a wrapper of the site's own?")
    if (int(match[1]), int(match[2])) < OLDEST:
        advice = "This package needs Slurm 20.02 or newer."
        return failed("slurm_version", f"Slurm {match[0]} is too old", advice)
    return ok("slurm_version", f"Slurm {match[0]}")


def _accounting(
    satellite: Satellite, config: Mapping[str, str], resources: Resources, user: str
) -> Iterator[Finding]:
    if not config.get("AccountingStorageType", "").endswith("slurmdbd"):
        advice = (
            "Jobs run all the same; memory and CPU use stay unknown, and some ends are told with less detail."
        )
        yield warning("accounting", "accounting is off on this cluster", advice)
        yield skipped("association", "accounting is off")
        return
    out, failure = ask(satellite, slurm_facts.associations_of(user))
    if failure is not None:
        advice = "Jobs run all the same; ask the site why the accounting does not answer."
        yield warning("accounting", f"the accounting does not answer: {failure}", advice)
        yield skipped("association", "the accounting does not answer")
        return
    enforced = config.get("AccountingStorageEnforce", "")
    yield ok("accounting", f"on; enforced: {enforced or 'nothing'}")
    yield _association(
        slurm_facts.parse_associations(out), resources, user, "associations" in enforced.split(",")
    )


def _association(
    associations: Sequence[Association], resources: Resources, user: str, enforced: bool
) -> Finding:
    wrong = partial(failed if enforced else warning, "association")
    account, qos = resources.account, resources.qos
    accounts = sorted({association.account for association in associations})
    if not associations:
        return wrong(f"{user} has no account on this cluster", "Ask the site for one.")
    if account is not None and account not in accounts:
        advice = f"Yours are {_quoted(accounts)}; correct `resources.account`."
        return wrong(f"{user} may not use the account `{account}`{_guess(account, accounts)}", advice)
    partitions = {None, *resources.partition.split(",")} if resources.partition else None
    usable = [
        association
        for association in associations
        if account in (None, association.account)
        and (partitions is None or association.partition in partitions)
    ]
    if not usable:
        advice = "`sacctmgr show assoc user=$USER` lists what goes together."
        return wrong(f"{user} may use the account `{account}` only in other partitions", advice)
    qualities = sorted(frozenset().union(*(association.qualities for association in usable)))
    if qos is not None and qualities and qos not in qualities:
        advice = f"There are {_quoted(qualities)}; correct `resources.qos`."
        return wrong(f"{user} may not use the QOS `{qos}`{_guess(qos, qualities)}", advice)
    levels = ", ".join(qualities) or "any"
    return ok("association", f"{user} has the accounts {', '.join(accounts)}; QOS {levels}")


def _partition(satellite: Satellite, resources: Resources) -> Iterator[Finding]:
    out, failure = ask(satellite, slurm_facts.PARTITIONS)
    partitions = slurm_facts.parse_partitions(out)
    if failure is not None or not partitions:
        yield skipped("partition", failure or "Slurm lists none")
        return
    names = resources.partition or slurm_facts.default_partition(partitions)
    for name in names.split(",") if names else ():
        yield _one_partition(name, partitions, resources)
    if not names:
        advice = f"Name one in `resources.partition`: {', '.join(partitions)}."
        detail = "the profile names no partition, and the cluster has no default one"
        yield failed("partition", detail, advice)


def _one_partition(name: str, partitions: Mapping[str, Partition], resources: Resources) -> Finding:
    wrong = partial(failed, "partition")
    if name not in partitions:
        advice = f"There are {', '.join(partitions)}; correct `resources.partition`."
        return wrong(f"there is no partition `{name}`{_guess(name, list(partitions))}", advice)
    row = partitions[name]
    if row.get("State", "UP") != "UP":
        advice = "Jobs wait there until the site opens it again; choose another one."
        return wrong(f"the partition `{name}` is {row['State']}", advice)
    for kind, value, names in (("account", resources.account, "Accounts"), ("qos", resources.qos, "Qos")):
        allowed, denied = members(row.get(f"Allow{names}")), members(row.get(f"Deny{names}")) or ()
        if value is not None and (value in denied or (allowed is not None and value not in allowed)):
            advice = f"It takes {_quoted(sorted(allowed))}." if allowed else "Choose another one."
            return wrong(f"the partition `{name}` does not take the {kind} `{value}`", advice)
    max_time = limit(row.get("MaxTime"))
    if resources.time and max_time:
        seconds, most = time_seconds(resources.time), time_seconds(max_time)
        if most is not None and (seconds is None or seconds > most):
            detail = f"`time` is {resources.time}, and the partition `{name}` allows {max_time}"
            return wrong(detail, "Such jobs wait for ever; lower `resources.time`.")
    at_most = f", at most {max_time}" if max_time else ""
    nodes = number(row.get("TotalNodes")) or "?"
    return ok("partition", f"{name} is up, {nodes} nodes{at_most}")


def _submission(satellite: Satellite, resources: Resources) -> Finding:
    """Ask sbatch itself, which knows rules that no query shows; ``--test-only`` submits nothing."""
    argv = ["sbatch", "--test-only", *command_line(resources.sbatch_options()), "--wrap=true"]
    try:
        done = satellite.run(argv, timeout=60)
    except SatelliteError as error:
        return failed("submission", error.message, "See slurm_clients.")
    if done.returncode == 0:
        return ok("submission", "sbatch --test-only takes the profile's jobs")
    rejection = classify_rejection(done.stderr.decode("utf-8", "replace"))
    option = f" (`resources.{rejection.option}`)" if rejection.option else ""
    wrong = warning if rejection.kind == "limit" else failed
    return wrong(
        "submission",
        f"sbatch refuses the profile's jobs{option}: {rejection.message}",
        rejection.hint or "Correct `resources` in the profile; scripts may add to them.",
    )


def _is_installed(satellite: Satellite, program: str) -> bool:
    try:
        satellite.run([program, "--version"], timeout=30)
    except SatelliteError as error:
        if error.code != "no_such_program":
            raise
        return False
    return True


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _guess(word: str, choices: Sequence[str]) -> str:
    guess = nearest(word, choices)
    return f"; did you mean `{guess}`?" if guess else ""
