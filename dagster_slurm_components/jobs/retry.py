"""Another attempt after a job's end: whether, when, and what is asked for then. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dagster_slurm_components.jobs.events import Ended
from dagster_slurm_components.jobs.outcome import JobOutcome
from dagster_slurm_components.jobs.status import StatusRecord
from dagster_slurm_components.spec.base import duration_seconds
from dagster_slurm_components.spec.retry import Again, AgainWithMemory, AgainWithTime, Retry, factor
from dagster_slurm_components.units import format_duration, parse_size, parse_time_limit

_NODE = re.compile(r"[A-Za-z0-9._-]+")
"""The name of one node; a list of several has commas or brackets."""
_MEMORY = ("mem", "mem-per-cpu", "mem-per-gpu")


@dataclass(frozen=True)
class NextAttempt:
    """What the next attempt is: the end that it answers, the seconds before it, and the options that it changes."""

    kind: str
    delay: float
    changed: Mapping[str, str]
    why: str


def next_attempt(
    policy: Retry,
    outcome: JobOutcome,
    ended: Ended,
    *,
    options: Mapping[str, str],
    retries: Mapping[str, int],
) -> NextAttempt | None:
    """Return the next attempt, or nothing when the policy has none (left).

    ``options`` are the Slurm options that the job was submitted with, ``retries`` how often each end has been answered.
    """
    if outcome.success or outcome.kind is None:
        return None
    rule: Again = getattr(policy, outcome.kind)
    done = retries.get(outcome.kind, 0)
    if done >= rule.attempts:
        return None
    changed: dict[str, str] | None = {}
    if isinstance(rule, AgainWithMemory):
        changed = _more_memory(rule, options, ended)
    elif isinstance(rule, AgainWithTime):
        changed = _more_time(rule, options, ended)
    elif outcome.kind == "node_fail":
        changed = _without_bad_node(ended, options)
    if changed is None:
        return None
    changes = "".join(f", with {name} {value}" for name, value in changed.items())
    delay = duration_seconds(rule.delay)
    wait = f" after {format_duration(delay)}" if delay else ""
    why = f"{outcome.message} `retry.{outcome.kind}` answers with attempt {done + 1} of {rule.attempts}{wait}{changes}."
    return NextAttempt(outcome.kind, delay, changed, why)


def _more_memory(rule: AgainWithMemory, options: Mapping[str, str], ended: Ended) -> dict[str, str] | None:
    """Return the option that asks for more memory, or nothing when that can't be or is no more."""
    status = ended.evidence.status or StatusRecord()
    granted = status.get("mem_per_node_mb") or ""
    name, asked = next(((name, options[name]) for name in _MEMORY if name in options), ("mem", granted))
    size = parse_size(asked, default_unit="M")
    if not size:  # unknown, or 0: all of a node's memory already
        return None
    wanted = _more(size, rule.mem, parse_size(rule.max_mem or "", default_unit="M"))
    return {name: f"{wanted // 2**20}M"} if wanted > size else None


def _more_time(rule: AgainWithTime, options: Mapping[str, str], ended: Ended) -> dict[str, str] | None:
    accounting = ended.evidence.accounting
    asked = parse_time_limit(options.get("time", "")) or (accounting.time_limit_s if accounting else None)
    if not asked:
        return None
    wanted = _more(asked, rule.time, parse_time_limit(rule.max_time or ""))
    return {"time": format_duration(wanted)} if wanted > asked else None


def _more(asked: int, times: str, most: int | None) -> int:
    wanted = round(asked * factor(times))
    return min(wanted, most) if most else wanted


def _without_bad_node(ended: Ended, options: Mapping[str, str]) -> dict[str, str]:
    """Return the option that leaves out the node of a job on one node.

    Of a job on several nodes nobody says which one failed. Slurm itself keeps what it found down out of the next
    job, and leaving out the sound ones as well could leave too few.
    """
    accounting, status = ended.evidence.accounting, ended.evidence.status or StatusRecord()
    nodes = (accounting.nodes if accounting else "") or status.get("nodes") or ""
    if not _NODE.fullmatch(nodes):
        return {}
    excluded = options.get("exclude")
    return {"exclude": f"{excluded},{nodes}" if excluded else nodes}
