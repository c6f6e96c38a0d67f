"""Why sbatch refused a job: its messages sorted into kinds, with the option concerned."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from dagster_slurm_components.slurm.reasons import explain
from dagster_slurm_components.slurm.replies import messages
from dagster_slurm_components.slurm.tables import read_table


@dataclass(frozen=True)
class Rejection:
    """Why a job was refused.

    Attributes:
        kind: ``permanent``: the same job will be refused again. ``limit``: nothing is wrong with the job, it
            may be accepted later. ``unknown``: sbatch gave no reason that is known here.
        option: The resource option concerned, by its name in YAML.
        message: What sbatch, or the site's own plugin, said.
        hint: What the user can do; may be empty.
    """

    kind: Literal["permanent", "limit", "unknown"]
    option: str | None
    message: str
    hint: str = ""


_Kind = Literal["permanent", "limit"]
_RULES = read_table("rejections")
_GENERIC = re.compile(
    r"job violates accounting/qos policy|unspecified error|generic error|no error", re.IGNORECASE
)
_FAILED = re.compile(r"^(?:batch )?job submission failed:\s*", re.IGNORECASE)
_NOISE = re.compile(r"^(?:try \"?sbatch|usage:|see '?man)", re.IGNORECASE)
_LIMIT_NAME = re.compile(r"\b(?:Assoc|QOS|Max|Grp)[A-Za-z]{4,60}\b")
_OPTION = re.compile(r"(?<![\w-])--(?P<name>[a-z][a-z0-9_-]*)")
_WORDS = (
    *("partition", "account", "qos", "reservation", "constraint", "gres", "gpus", "time", "mem", "nodes"),
    "ntasks",
)


def classify_rejection(err: str) -> Rejection:
    """Sort what sbatch wrote to stderr when it refused a job. Never raises.

    A site's own words (its ``job_submit`` plugin's) come before Slurm's "Unspecified error" and are the
    message then.
    """
    lines = [line for line in messages(err) if not _NOISE.search(line)]
    final = next((_FAILED.sub("", line) for line in lines if _FAILED.search(line)), "")
    others = [line for line in lines if not _FAILED.search(line)]
    named = _named_limit(lines)
    if named is not None:
        return named
    if final and not _GENERIC.search(final):
        return _by_rules([final, *others], "\n".join([*others, final]))
    if others:
        # With a "submission failed" line these are the site's plugin's words, without it sbatch's own.
        return _by_rules(others, "\n".join(others))
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
    rejections = [rejection for text in texts if (rejection := _by_rule(text, message)) is not None]
    if rejections:
        return next((each for each in rejections if each.option is not None), rejections[0])
    words = [word for word in _WORDS if re.search(rf"\b{word}", " ".join(texts), re.IGNORECASE)]
    return Rejection("permanent", words[0] if len(words) == 1 else None, message)


def _by_rule(text: str, message: str) -> Rejection | None:
    spelled_out = _OPTION.search(text)
    option = spelled_out["name"].replace("-", "_") if spelled_out else None
    for rule in _RULES:
        if re.search(rule["pattern"], text, re.IGNORECASE):
            usual = rule["option"] or None
            # A rule knows the family (gres); the message may spell out the member (gpus_per_task).
            if option is None or "mutually exclusive" in text:
                option = usual
            return Rejection(
                cast("_Kind", rule["kind"]), option, message, rule["hint"] if option == usual else ""
            )
    return Rejection("permanent", option, message) if option else None
