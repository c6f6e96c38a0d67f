"""What is left of accounts' budgets: ``sshare``, one query for all accounts that a user sees.

It asks slurmctld, so it knows what running jobs may still take. It knows no account's parent by name: that is told by
how far a name is indented (22.05 to 26.05). Without ``--accounts``, for with it the parents are missing, and their
budgets bind as well. Only ``priority/multifactor`` keeps what it tells; elsewhere it fails, and nothing is known.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_COLUMNS = ("Account", "User", "GrpTRESMins", "GrpTRESRaw", "TRESRunMins")
UNITS: Mapping[str, str] = {"cpu": "core", "gres/gpu": "GPU", "node": "node", "billing": "billing"}
"""What a budget counts, by Slurm's name of it: the word before ``-hours``."""
_COUNT = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,9})?")

Counts = Mapping[str, float]


@dataclass(frozen=True)
class Share:
    """An account, or this user in it, and how many minutes of each resource its jobs together may take.

    Attributes:
        depth: How far below the root of all accounts it is.
        user: The user; empty for the account itself.
        limits: Minutes that they may take; what is not limited is missing.
        taken: Minutes that they took, and that running jobs may still take up to their time limits.
    """

    account: str
    depth: int
    user: str
    limits: Counts
    taken: Counts

    @property
    def owner(self) -> str:
        """Whose it is, in words."""
        account = f"account `{self.account}`"
        return f"{self.user} in {account}" if self.user else account


@dataclass(frozen=True)
class Budget:
    """What is left of one resource to a job, in hours; the ``owner`` of the budget that binds is a parent, perhaps."""

    owner: str
    resource: str
    left: float
    limit: float

    @property
    def words(self) -> str:
        """What is left, in words."""
        left, limit = in_hours(self.left), in_hours(self.limit)
        return f"{left} of {limit} {UNITS[self.resource]}-hours are left to {self.owner}"


def sshare() -> list[str]:
    """Return the command that lists all accounts, and this user in them."""
    return ["sshare", "--noheader", "--parsable2", f"--format={','.join(_COLUMNS)}"]


def parse_sshare(out: str) -> tuple[Share, ...]:
    """Read sshare's answer, in its order: an account stands below its parent. Lines that are no row are skipped."""
    rows = [line.split("|") for line in out.splitlines()]
    return tuple(
        Share(row[0].strip(), len(row[0]) - len(row[0].lstrip(" ")), row[1].strip(), _counts(row[2]), taken)
        for row in rows
        if len(row) == len(_COLUMNS) and row[0].strip()
        for taken in [_sum(_counts(row[3]), _counts(row[4]))]
    )


def budgets(shares: Sequence[Share], account: str | None) -> tuple[Budget, ...]:
    """Return what is left to a job of an account, of each limited resource: the least on the way up to the root.

    Without a name it is the one account that the user has, if it is only one. Slurm keeps names in small letters.
    """
    if account is None:
        own = {share.account for share in shares if share.user}
        account = own.pop() if len(own) == 1 else None
    found: dict[str, Budget] = {}
    for share in _way_up(shares, account.lower() if account else None):
        for resource, limit in share.limits.items():
            taken = share.taken.get(resource)
            if resource in UNITS and taken is not None:
                here = Budget(share.owner, resource, max(0.0, limit - taken) / 60, limit / 60)
                found[resource] = min(found.get(resource, here), here, key=lambda budget: budget.left)
    return tuple(found[resource] for resource in UNITS if resource in found)


def _way_up(shares: Sequence[Share], account: str | None) -> Iterator[Share]:
    """Yield this user in the account, the account, its parent, and so on."""
    places = [place for place, share in enumerate(shares) if share.account == account and not share.user]
    if len(places) != 1:
        return
    own = [share for share in shares if share.account == account and share.user]
    if len(own) == 1:  # of several, each holds in one partition
        yield own[0]
    depth = shares[places[0]].depth + 1
    for share in reversed(shares[: places[0] + 1]):
        if share.depth < depth and not share.user:
            yield share
            depth = share.depth


def in_hours(hours: float) -> str:
    """Write a number of hours for a person: ``1,234``, ``12.5``, ``0.03``."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _counts(text: str) -> dict[str, float]:
    """Read ``cpu=100,gres/gpu=5``; what is no number is left out."""
    pairs = (entry.partition("=") for entry in text.strip().split(","))
    return {name: float(count) for name, _, count in pairs if _COUNT.fullmatch(count)}


def _sum(some: Counts, others: Counts) -> dict[str, float]:
    return {name: some[name] + others[name] for name in some.keys() & others.keys()}
