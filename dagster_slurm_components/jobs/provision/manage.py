"""Looking after the environments of a host: what is there, whether it is whole, what may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dagster_slurm_components.jobs.provision.builder import check_order
from dagster_slurm_components.jobs.provision.provide import Site

_VERIFY_TIMEOUT = 1800.0
_PRUNE_TIMEOUT = 1800.0


@dataclass(frozen=True)
class Stored:
    """An environment of a host.

    Attributes:
        key: Its key, and the name of its folder.
        name: What people call it.
        kind: Its type.
        packages: How many packages it has.
        created: When it was made, in seconds since the epoch.
        used: When a job last began in it; when it was made, if none has.
        bytes: Size of its files; files shared with another environment count in both.
        inodes: How many files and folders it has.
    """

    key: str
    name: str
    kind: str
    packages: int
    created: float
    used: float
    bytes: int
    inodes: int

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Stored:
        """Read a row of the builder's answer."""
        return cls(
            key=row["key"],
            name=row["name"],
            kind=row["kind"],
            packages=len(row["packages"]),
            created=row["created"],
            used=row.get("used", row["created"]),
            bytes=row["bytes"],
            inodes=row["inodes"],
        )


@dataclass(frozen=True)
class Inventory:
    """What a working folder holds: its environments, and the bytes and inodes of the store below them."""

    environments: tuple[Stored, ...]
    store_bytes: int
    store_inodes: int


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        removed: Key, name and bytes of each.
        kept: Why, by key.
        freed: Bytes of the store's files that nobody needs any more.
    """

    removed: tuple[tuple[str, str, int], ...]
    kept: Mapping[str, str]
    freed: int


def inventory(site: Site) -> Inventory:
    """Return all environments of a host's working folder, and the size of its store."""
    answer = site.builder.call("list", {})
    rows = tuple(Stored.read(row) for row in answer["environments"])
    return Inventory(rows, answer["store"]["bytes"], answer["store"]["inodes"])


def verify(
    site: Site, keys: Sequence[str] = (), mode: Literal["names", "full"] = "full"
) -> Mapping[str, tuple[str, ...]]:
    """Return the differences of environments from what they were published with, by key; of all without ``keys``."""
    order = {"keys": list(keys), "check": check_order(mode)}
    answer = site.builder.call("verify", order, timeout=_VERIFY_TIMEOUT)
    return {key: tuple(lines) for key, lines in answer["differences"].items()}


def prune(site: Site, keep: Sequence[str], *, unused_for: float, dry_run: bool = False) -> Pruned:
    """Remove environments that nobody refers to, and files of the store that no environment needs.

    Kept are those in ``keep``, those of jobs that wait or run, and those that a job used lately.

    Args:
        site: The host.
        keep: Keys that scripts of the profile need.
        unused_for: Seconds without a use after which one may go.
        dry_run: Only say what would go.
    """
    order = {"keep": list(keep), "unused_for": unused_for, "dry_run": dry_run}
    answer = site.builder.call("prune", order, timeout=_PRUNE_TIMEOUT)
    removed = tuple((row["key"], row["name"], row["bytes"]) for row in answer["removed"])
    return Pruned(removed, answer["kept"], answer["freed"])
