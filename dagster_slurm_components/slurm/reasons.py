"""Why a job waits: Slurm's pending reasons in plain words, and what a user can change."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from dagster_slurm_components.slurm.tables import read_table

Permanence = Literal["wait", "held", "never"]


@dataclass(frozen=True)
class Reason:
    """One pending reason.

    Attributes:
        name: Slurm's word for it; ``text`` is the same in plain words, with the details Slurm added.
        permanence: ``wait``: time heals it. ``held``: nothing happens until a person acts, the user or an
            administrator. ``never``: this job, as it was submitted, will not start.
        option: The resource option a user would change, by its name in YAML.
        others: Further ones that may be the cause: Slurm has one word for several.
        known: Whether the reason is explained here, or only passed through.
        budget: Whether it is an account's budget that does not pay for it.
    """

    name: str
    text: str
    permanence: Permanence
    option: str | None = None
    others: tuple[str, ...] = ()
    known: bool = True
    budget: bool = False


_TABLE = {row["name"]: row for row in read_table("reasons")}
_SENTENCES = {row["sentence"]: name for name, row in _TABLE.items() if row["sentence"]}

# The rest, about 130, are limits named by a scheme: whose, which kind, of what, counted how.
_LIMITED = {row["name"]: row for row in read_table("limited")}
_LIMIT = re.compile(
    rf"(?P<whose>Assoc|QOS|)(?P<kind>Grp|Max|Min)(?P<what>{'|'.join(_LIMITED)})"
    r"(?P<minutes>Minutes|RunMinutes|RunMins|)(?P<per>PerJob|PerNode|PerUser|PerAccount|)(?:Limit)?"
)
_OWNERS = {"Assoc": ("account", "account"), "QOS": ("QOS", "qos"), "": ("account or QOS", None)}


def explain(reason: str) -> Reason:
    """Explain a pending reason, as squeue's or scontrol's ``Reason``. Never raises.

    Details after the name (``ReqNodeNotAvail, UnavailableNodes:node[1-3]``) are kept. An unknown reason, such
    as a site's own, is passed through as it is and taken for ``wait``.
    """
    written = reason.strip()
    if written.startswith("(") and written.endswith(")"):
        written = written[1:-1]
    spaced = written.replace("_", " ").strip()
    for sentence, name in _SENTENCES.items():
        if spaced.lower().startswith(sentence):
            details = spaced if "exceeds" in sentence else spaced.partition("(")[2].removesuffix(")")
            return _of_table(name, details)
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
    row = _TABLE[name]
    permanence = cast("Permanence", row["permanence"])
    options = tuple(row["option"].split())
    option = options[0] if options else None
    return Reason(name, _with_details(row["text"], details), permanence, option, options[1:])


def _of_limit(name: str, limit: re.Match[str], details: str) -> Reason:
    # A limit on one job alone is "never": the job breaks it by itself, and only another job, or an administrator,
    # changes that. A limit that other jobs share is "wait".
    owner, owner_option = _OWNERS[limit["whose"]]
    resource, option = _LIMITED[limit["what"]]["words"], _LIMITED[limit["what"]]["option"] or None
    counted = {"": resource, "Minutes": f"{resource} times minutes"}.get(
        limit["minutes"], f"{resource} times minutes still to run"
    )
    alone = limit["per"] in ("PerJob", "PerNode") or limit["kind"] == "Min" or limit["what"] == "WallDuration"
    used_up = limit["kind"] == "Grp" and limit["minutes"] == "Minutes"
    if used_up or option is None:
        option = owner_option
    elif alone and limit["minutes"]:
        option = "time"
    if limit["kind"] == "Min":
        text = f"The job asks for less than the {owner} demands: {counted}."
    elif alone:
        scope = " on one node" if limit["per"] == "PerNode" else ""
        text = f"The job asks for more{scope} than the {owner} allows one job: {counted}."
    elif used_up:
        text = f"The budget of the {owner} is used up, or the job would exceed it: {counted}."
    else:
        who = {"PerUser": "one user", "PerAccount": "one account"}.get(limit["per"], "all its jobs together")
        text = f"The {owner} allows {who} no more at once: {counted}."
    permanence: Permanence = "never" if alone else "wait"
    budget = used_up and limit["whose"] == "Assoc"
    return Reason(name, _with_details(text, details), permanence, option, budget=budget)


def _with_details(text: str, details: str) -> str:
    details = details.strip(" ,:")
    if details.startswith("(") and details.endswith(")"):
        details = details[1:-1]
    return f"{text} ({details})" if details else text
