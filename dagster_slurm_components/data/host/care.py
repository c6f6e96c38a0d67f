"""Looks after the inputs that are there: lists them, removes what nobody needs, keeps all of them within a bound."""

import collections
import contextlib
import itertools
import os
import re
import stat
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from dagster_slurm_components.data.host.layout import Layout
from dagster_slurm_components.environments.host.running import in_use
from dagster_slurm_components.environments.host.tools import Json, Problem, size_of
from dagster_slurm_components.hosts.satellite.files import read_json, remove_tree
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import Failure, native

_DAY = 86400.0
_COMING = 3600.0
"""Seconds for which a file that no input holds may belong to one that is on its way."""
_AWAITED = 600.0
"""Seconds for which an input that was asked for may be that of a job which is yet to be submitted."""
_PATIENCE = 3600.0
_KEY = re.compile(rb"[0-9a-f]{32}\Z")


class _Plan(NamedTuple):
    """What is to go; ``links`` counts what goes of each inode, and ``left`` are the bytes of inputs that stay."""

    begun: float
    removed: List[Json]
    kept: Dict[str, str]
    links: Dict[int, int]
    left: int


def show(order: Json) -> Json:
    """Return all inputs; ``bytes`` and ``inodes`` are those of all together, each file once."""
    layout = Layout(order["workdir"])
    rows = _inputs(layout)
    running = _running(layout, rows)
    names = ("key", "name", "source", "bytes", "count", "made", "used")
    sizes = [facts.st_size for _, facts in _objects(layout)]
    return {
        "trees": [dict({name: row[name] for name in names}, in_use=row["key"] in running) for row in rows],
        "bytes": sum(sizes) + sum(row["copied"] for row in rows),
        "inodes": len(sizes) + sum(row["inodes"] for row in rows),
    }


def prune(order: Json) -> Json:
    """Remove inputs, the longest unused first, and files that none holds any more, nor will hold soon.

    Kept are those that jobs name which have not ended, those in ``keep``, and those used in the last ``unused_for``
    seconds; with ``most``, all others as soon as so many bytes are left. With neither of the two all inputs are kept.
    """
    layout, unused_for, most = Layout(order["workdir"]), order["unused_for"], order["most"]
    with _one_at_a_time(layout):
        plan = _plan(layout, order["keep"], unused_for, most, min(_AWAITED, unused_for or 0.0))
        freed = _perform(layout, plan, dry_run=order["dry_run"])
    removed = [[row["key"], row["name"], row["bytes"]] for row in plan.removed]
    return {"removed": removed, "kept": plan.kept, "freed": freed}


def make_room(layout: Layout, bound: Optional[int], size: int, *, new: int) -> None:
    """Let an input of ``size`` bytes, of which ``new`` are not among the objects, stay within the bound.

    Others are removed for it, the longest unused first, and none if that is not enough: the Problem is ``full``. Not
    counted are files that no input holds yet, such as those that are being added at the same time.
    """
    if bound is None or sum(row["bytes"] for row in _inputs(layout)) + size <= bound:
        return
    with _one_at_a_time(layout):
        plan = _plan(layout, [], None, bound - new, _AWAITED)
        if plan.left + new > bound:
            why = collections.Counter(plan.kept.values())
            said = "%d bytes more are over the bound of %d bytes for inputs, of which %d must stay"
            detail = ["%d inputs: %s" % (count, reason) for reason, count in sorted(why.items())]
            raise Problem("full", said % (new, bound, plan.left), detail)
        _perform(layout, plan, dry_run=False)


def _one_at_a_time(layout: Layout) -> "contextlib.AbstractContextManager[None]":
    return locked(os.path.join(layout.folder(), b".lock-prune"), _PATIENCE, pause=0.2)


def _names(folder: bytes) -> List[bytes]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def _inputs(layout: Layout) -> List[Json]:
    """Return all inputs, with when a job last began with one (``used``), and when one was last asked for."""
    rows = []
    for name in filter(_KEY.match, _names(os.path.join(layout.data, b"trees"))):
        key = name.decode()
        ready, times = layout.ready(key), _times(layout, key)
        if ready is not None:
            rows.append(dict(ready, asked=times[0], used=times[1] or ready["made"], times=times))
    return rows


def _times(layout: Layout, key: str) -> Tuple[float, float]:
    times = [0.0, 0.0]
    for number, name in enumerate((b".ready", b".used")):
        with contextlib.suppress(FileNotFoundError):
            times[number] = os.stat(os.path.join(layout.tree(key), name)).st_mtime
    return times[0], times[1]


def _running(layout: Layout, rows: List[Json]) -> Set[str]:
    return in_use(Path(os.fsdecode(layout.workdir)), "inputs.trees", [row["key"] for row in rows])


def _objects(layout: Layout) -> Iterator[Tuple[bytes, os.stat_result]]:
    top = os.path.join(layout.data, b"objects")
    for folder in _names(top):
        for name in _names(os.path.join(top, folder)):
            path = os.path.join(top, folder, name)
            with contextlib.suppress(FileNotFoundError):
                yield path, os.lstat(path)


def _plan(
    layout: Layout, keep: Sequence[str], unused_for: Optional[float], most: Optional[int], awaited: float
) -> _Plan:
    begun, rows = time.time(), _inputs(layout)
    running = _running(layout, rows)
    plan = _Plan(begun, [], {}, {}, 0)
    held = sum(facts.st_size for _, facts in _objects(layout) if facts.st_nlink > 1)
    left = held + sum(row["copied"] for row in rows)
    for row in sorted(rows, key=lambda row: row["used"]):
        key, ago = row["key"], begun - row["used"]
        if key in keep:
            plan.kept[key] = "it is to be kept"
        elif key in running:
            plan.kept[key] = "a job that has not ended uses it"
        elif row["asked"] > row["times"][1] and begun - row["asked"] < awaited:  # no clock but the files' own
            plan.kept[key] = "it was just asked for, and no job has begun with it since"
        elif unused_for is not None and ago < unused_for:
            plan.kept[key] = "used %.1f days ago" % (ago / _DAY)
        elif left <= most if most is not None else unused_for is None:
            plan.kept[key] = "there is room for it"
        else:
            plan.removed.append(row)
            left -= _frees(layout, row, plan.links)
    return plan._replace(left=left)


def _frees(layout: Layout, row: Json, links: Dict[int, int]) -> int:
    """Count the links of an input that goes; return the bytes of what no other input holds then."""
    freed, base = 0, os.path.join(layout.tree(row["key"]), native(row["name"]))
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(base) for name in names]
    for facts in map(os.lstat, paths if os.path.isdir(base) else [base]):
        if stat.S_ISREG(facts.st_mode):
            links[facts.st_ino] = links.get(facts.st_ino, 0) + 1
            if facts.st_nlink - links[facts.st_ino] <= 1:  # the object's own; none if this is a copy
                freed += facts.st_size
    return freed


def _is_left(facts: os.stat_result, plan: _Plan) -> bool:
    """Return whether an object that nobody links can go; one that was admitted since is about to be linked."""
    if facts.st_nlink - plan.links.get(facts.st_ino, 0) > 1 or facts.st_mtime > plan.begun:
        return False
    return facts.st_ino in plan.links or plan.begun - facts.st_mtime > _COMING


def _perform(layout: Layout, plan: _Plan, *, dry_run: bool) -> int:
    """Remove what is to go, and what killed makers and old downloads have left; return the bytes."""
    for row in list(plan.removed) if not dry_run else []:
        if not _take_away(layout, row):
            plan.removed.remove(row)
            plan.kept[row["key"]] = "it is being made, or was asked for just now"
    freed: int = sum(row["copied"] for row in plan.removed)
    done = plan if dry_run else plan._replace(links=dict.fromkeys(plan.links, 0))
    # Looked at one by one, each just before it goes: an input that is made meanwhile may link it.
    left = ((path, facts.st_size) for path, facts in _objects(layout) if _is_left(facts, done))
    for path, size in itertools.chain(left, _forgotten(layout, plan.begun)):
        freed += size
        if not dry_run:
            remove_tree(path)
    return freed


def _take_away(layout: Layout, row: Json) -> bool:
    """Remove an input in two steps: out of sight at once, then its files."""
    key = row["key"]
    aside = layout.tree(key, "removing")
    try:
        with locked(layout.lock(b"trees", key), 0):
            if _times(layout, key) != row["times"]:
                return False
            remove_tree(aside)
            with contextlib.suppress(FileNotFoundError):
                os.rename(layout.tree(key), aside)
    except Failure:
        return False
    remove_tree(aside)
    return True


def _forgotten(layout: Layout, now: float) -> Iterator[Tuple[bytes, int]]:
    """Yield what is not finished and was not touched for a day, and what is known of inputs that are gone."""
    trees, urls, incoming = (os.path.join(layout.data, name) for name in (b"trees", b"urls", b"incoming"))
    found = [os.path.join(incoming, name) for name in _names(incoming) if not name.startswith(b".lock-")]
    for name in _names(trees):
        if name.startswith((b".making-", b".removing-")) or (
            _KEY.match(name) and not layout.ready(name.decode())
        ):
            found.append(os.path.join(trees, name))
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            if now - os.lstat(path).st_mtime > _DAY:
                yield path, size_of(os.fsdecode(path))[0] if os.path.isdir(path) else os.lstat(path).st_size
    for name in _names(urls):
        path = os.path.join(urls, name)
        known = read_json(path) if name.endswith(b".json") else None
        if known is not None and not os.path.exists(layout.tree(known["key"])):
            yield path, 0
