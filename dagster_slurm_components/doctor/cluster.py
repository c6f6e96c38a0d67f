"""Does Slurm work there, and would it take the profile's jobs?"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
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
from dagster_slurm_components.slurm.shares import budgets, parse_sshare, sshare
from dagster_slurm_components.spec.problems import nearest
from dagster_slurm_components.spec.resources import Resources
from dagster_slurm_components.spec.slurm_values import time_seconds

NEEDED = ("sbatch", "squeue", "scancel", "scontrol")
USED = ("sacct", "sacctmgr", "sinfo")
OLDEST = (20, 2)
"""`squeue --me` exists since Slurm 20.02."""
SLURM = (
    *("slurm_clients", "slurm_version", "controller", "accounting", "association", "limits", "partition"),
    "submission",
)
"""The checks of a cluster."""
_MISSING = (
    "how much memory a job used stays unknown where nodes have no cgroups; so does the CPU time of several nodes",
    "by whom a job was cancelled stays unknown",
    "how a job ended is known for {age} from Slurm; after that from its own files alone, or it is told as lost",
    "an sbatch that gave no answer is settled by the queue, {wait}",
)
"""What is missing without accounting."""


def ask(satellite: Satellite, argv: Sequence[str]) -> tuple[str, str | None]:
    """Ask one of Slurm's programs; return what it wrote, and why that does not count, if it does not."""
    try:
        done = satellite.run(list(argv), timeout=30)
    except SatelliteError as error:
        return "", error.message
    out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return out, query_failure(None if done.timed_out else done.returncode, out, err)


def check_slurm(
    satellite: Satellite, resources: Resources, facts: HostFacts, most: int | None
) -> Iterator[Finding]:
    """Check clients, controller, accounting, and the ``resources`` that jobs ask for when their scripts add nothing.

    Some failures end it early. ``most`` is how many jobs the profile lets wait or run at once.
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
    account = yield from _accounting(satellite, config, resources, facts.user, most)
    yield from _budgets(satellite, resources.account or account)
    yield from _partition(satellite, resources, resources.account or account)
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
    satellite: Satellite, config: Mapping[str, str], resources: Resources, user: str, most: int | None
) -> Generator[Finding, None, str | None]:
    """Check the accounting and what the user may use; return the account of jobs that name none, where it is known."""
    enforced = config.get("AccountingStorageEnforce", "")
    kept = config.get("AccountingStorageType", "").endswith("slurmdbd")
    out, failure = ask(satellite, slurm_facts.associations_of(user)) if kept else ("", "accounting is off")
    silent = failure or ask(satellite, slurm_facts.ENDED_JOBS)[1]
    if silent is None:
        yield ok("accounting", f"on; enforced: {enforced or 'nothing'}")
    else:
        detail = f"the accounting does not answer: {silent}" if kept else "accounting is off on this cluster"
        yield warning("accounting", detail, "Jobs run all the same." + " Ask the site why." * kept)
        wait = "15 minutes later" if kept else "2 minutes later"
        age = config.get("MinJobAge", "minutes (MinJobAge)")
        yield from (note("accounting", text.format(age=age, wait=wait)) for text in _MISSING)
    if failure is not None:
        yield from (skipped(check, failure) for check in ("association", "limits"))
        return None
    associations = slurm_facts.parse_associations(out)
    yield _association(associations, resources, user, "associations" in enforced.split(","))
    account = resources.account or (associations[0].default if associations else None)
    mine = next((each for each in associations if each.account == account), None)
    if "limits" in enforced.split(",") and mine is not None:
        yield _limits(satellite, mine, resources, most)
    else:
        yield skipped("limits", "the cluster enforces none" if mine else "the account is not yours")
    return account


def _limits(satellite: Satellite, mine: Association, resources: Resources, most: int | None) -> Finding:
    """Look at what sbatch takes all the same: jobs beyond a limit of the account or QOS wait for ever."""
    quality = resources.qos or mine.default_quality
    levels = slurm_facts.parse_qualities(ask(satellite, slurm_facts.QUALITIES)[0])
    owners = {f"account `{mine.account}`": mine._asdict(), f"QOS `{quality}`": levels.get(quality or "", {})}
    for owner, limits in owners.items():
        if _exceeds(resources.time, limits.get("max_time")):
            detail = f"`time` is {resources.time}, and your {owner} allows {limits['max_time']}"
            return failed("limits", detail, "Such jobs wait for ever; lower `resources.time`.")
    for owner, limits in owners.items():
        submit = limits.get("max_submit_jobs")
        if submit is not None and (most is None or most > submit):
            advice = f"Write `limits: {{max_submit_jobs: {submit}}}`: further ones then wait in Dagster."
            return note("limits", f"your {owner} lets {submit} jobs wait and run at once", advice)
    return ok("limits", f"neither {' nor '.join(owners)} is in the way")


def _budgets(satellite: Satellite, account: str | None) -> Iterator[Finding]:
    """Tell what is left of the account's budgets, where Slurm counts them; of many sites only their own tool knows."""
    out, failure = ask(satellite, sshare())
    for budget in budgets(parse_sshare(out), account) if failure is None else ():
        if budget.left > 0:
            yield ok("budget", budget.words)
        else:
            advice = "Its jobs wait until there is more: ask for it, or name another `resources.account`."
            yield warning("budget", budget.words, advice)


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


def _partition(satellite: Satellite, resources: Resources, account: str | None) -> Iterator[Finding]:
    out, failure = ask(satellite, slurm_facts.PARTITIONS)
    partitions = slurm_facts.parse_partitions(out)
    if failure is not None or not partitions:
        yield skipped("partition", failure or "Slurm lists none")
        return
    names = resources.partition or slurm_facts.default_partition(partitions)
    for name in names.split(",") if names else ():
        yield _one_partition(name, partitions, resources, account)
    if not names:
        advice = f"Name one in `resources.partition`: {', '.join(partitions)}."
        detail = "the profile names no partition, and the cluster has no default one"
        yield failed("partition", detail, advice)


def _one_partition(
    name: str, partitions: Mapping[str, Partition], resources: Resources, account: str | None
) -> Finding:
    wrong = partial(failed, "partition")
    if name not in partitions:
        advice = f"There are {', '.join(partitions)}; correct `resources.partition`."
        return wrong(f"there is no partition `{name}`{_guess(name, list(partitions))}", advice)
    row = partitions[name]
    if row.get("State", "UP") != "UP":
        advice = "Jobs wait there until the site opens it again; choose another one."
        return wrong(f"the partition `{name}` is {row['State']}", advice)
    for kind, value, names in (("account", account, "Accounts"), ("qos", resources.qos, "Qos")):
        allowed, denied = members(row.get(f"Allow{names}")), members(row.get(f"Deny{names}")) or ()
        if value is not None and (value in denied or (allowed is not None and value not in allowed)):
            advice = f"It takes {_quoted(sorted(allowed))}." if allowed else "Choose another one."
            own = "" if getattr(resources, kind) else ", which jobs have that name none"
            return wrong(f"the partition `{name}` does not take the {kind} `{value}`{own}", advice)
    max_time = limit(row.get("MaxTime"))
    if _exceeds(resources.time, max_time):
        detail = f"`time` is {resources.time}, and the partition `{name}` allows {max_time}"
        return wrong(detail, "Such jobs wait for ever; lower `resources.time`.")
    at_most = f", at most {max_time}" if max_time else ""
    nodes = number(row.get("TotalNodes")) or "?"
    return ok("partition", f"{name} is up, {nodes} nodes{at_most}")


def _exceeds(time: str | None, allowed: str | None) -> bool:
    if not time or not allowed:
        return False
    seconds, most = time_seconds(time), time_seconds(allowed)
    return most is not None and (seconds is None or seconds > most)


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
