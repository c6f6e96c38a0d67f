"""What an input is, wherever it lies: a name, the rows of its files, its folders, and the key of all that. Pure."""

import hashlib
import json
import re
from typing import Iterable, List, NamedTuple, Sequence, Set

from dagster_slurm_components.environments.host.tools import Problem
from dagster_slurm_components.hosts.satellite.protocol import Failure, native

FORMAT = 1
"""Part of every key: raised when the same content is laid out in another way."""
PLAIN, EXECUTABLE, LINK = "", "x", "l"
_HASH = re.compile(r"[0-9a-f]{64}\Z")


class Tree(NamedTuple):
    """An input: a single file, whose one row has the relative name ``""``, or a folder.

    ``rows`` are ``[relative name, kind, content]``: of a file (``PLAIN``, ``EXECUTABLE``) its SHA-256, of a ``LINK``
    where it points to, relative and within the folder. ``folders`` must name at least those in which nothing lies.
    """

    name: str
    rows: List[Sequence[str]]
    folders: List[str]
    is_folder: bool


def tree_key(name: str, rows: Iterable[Sequence[str]], folders: Sequence[str], is_folder: bool) -> str:
    """Return the key of an input's content: it changes with it, but not with the order or a folder that files imply."""
    files = sorted(list(row) for row in rows)
    empty = set(folders) - above([row[0] for row in files]) - above(folders)
    parts = {"format": FORMAT, "name": name, "files": files, "folders": sorted(empty), "folder": is_folder}
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def above(places: Iterable[str]) -> Set[str]:
    """Return all folders in which these lie."""
    found: Set[str] = set()
    for place in places:
        parent = place.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def check(tree: Tree) -> None:
    """Refuse an input of which a part would lie outside, or in the way of another."""
    if "/" in tree.name or tree.name in (".ready", ".used"):
        raise _refused(tree.name, "which is no name of an input")
    places = [row[0] for row in tree.rows]
    if not tree.is_folder and (places != [""] or tree.folders):
        raise _refused(tree.name, "a single file, with other rows than that one")
    for place in [tree.name, *tree.folders, *(places if tree.is_folder else [])]:
        if not is_inside(place):
            raise _refused(place, "which would lie outside, or has no name")
    for place, kind, content in tree.rows:
        if kind == LINK and tree.is_folder:
            if not stays_inside(place, content):
                raise _refused(place, "a link that leads outside, to %r" % content)
        elif kind not in (PLAIN, EXECUTABLE) or not is_hash(content):
            raise _refused(place, "of kind %r, with the content %r" % (kind, content))
    taken = above([*places, *tree.folders]).union(tree.folders)
    seen: Set[str] = set()
    for place in places:
        if place in taken or place in seen:
            raise _refused(place, "which is there twice")
        seen.add(place)


def is_hash(text: str) -> bool:
    """Return whether this is a SHA-256 as we write it."""
    return _HASH.match(text) is not None


def is_inside(place: str) -> bool:
    """Return whether a relative name leads to a place of its own below the folder that it is relative to."""
    return _is_path(place) and not {"", ".", ".."}.intersection(place.split("/"))


def stays_inside(place: str, target: str) -> bool:
    """Return whether a link at ``place`` can't lead out, whatever other such links are on its way.

    It may first go up, at most to the top: from there it only goes down, or by links of which the same is true.
    """
    parts = target.split("/")
    ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return bool(_is_path(target) and parts[0] and ups <= place.count("/") and ".." not in parts[ups:])


def _is_path(text: str) -> bool:
    try:
        return native(text) != b""
    except (Failure, UnicodeEncodeError):  # a NUL; half a character
        return False


def _refused(place: str, why: str) -> Problem:
    return Problem("unsafe", "the input holds %r, %s" % (place, why), [place])
