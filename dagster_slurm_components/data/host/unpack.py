"""Unpacks archives: members become objects under names of ours, and theirs are only rows, checked like any input's.

So no member's name, link or mode ever reaches the disk before all of them are known, and nothing of it needs
``tarfile``'s own filters, which old Pythons lack.
"""

import errno
import hashlib
import os
import re
import time
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from dagster_slurm_components.data.host.archives import BROKEN, FOLDER, SAME, Member, members_of
from dagster_slurm_components.data.host.care import make_room
from dagster_slurm_components.data.host.content import LINK, PLAIN, Tree, check
from dagster_slurm_components.data.host.layout import Layout, identity, lowest, room_on_disk
from dagster_slurm_components.data.host.trees import asked, make
from dagster_slurm_components.environments.host.tools import CHUNK, Json, Problem
from dagster_slurm_components.hosts.satellite.files import read_json, remove_tree, write_json
from dagster_slurm_components.hosts.satellite.locks import locked

_PATIENCE = 24 * 3600.0
_MOST_MEMBERS = 1000000
_SUFFIX = re.compile(r"(?i)\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2?|txz|tzst|zip)\Z")


def unpack(order: Json) -> Json:
    """Make an input of an archive that is an object already."""
    layout, digest = Layout(order["workdir"]), order["sha256"]
    with room_on_disk(layout):
        found = unpacked(layout, order["name"], digest)
        if found is None:
            archive = layout.object(PLAIN, digest)
            if not os.path.exists(archive):
                raise Problem("missing", "the archive %s is not on the host" % order["name"], [digest])
            found = unpack_file(layout, archive, digest, order)
    return dict(found, sha256=digest)


def unpacked(layout: Layout, name: str, digest: str) -> Optional[Json]:
    """Return the input that an archive has become, if it is there."""
    known = read_json(layout.record(identity("archive", digest, name)))
    return None if known is None else asked(layout, known["key"])


def unpack_file(layout: Layout, archive: bytes, digest: str, order: Json) -> Json:
    """Make an input of an archive, called after it without its suffix."""
    key = identity("archive", digest, order["name"])
    aside = os.path.join(layout.folder(b"incoming"), key.encode() + b".d")
    with locked(layout.lock(b"incoming", key), _PATIENCE, pause=0.5):
        found = unpacked(layout, order["name"], digest)
        if found is not None:
            return found
        remove_tree(aside)
        os.mkdir(aside, 0o700)
        try:
            bound = order.get("bound")
            rows, folders = _gather(members_of(archive), aside, lowest(order["most"], bound), order["name"])
            tree = Tree(_SUFFIX.sub("", order["name"]) or order["name"], rows, folders, is_folder=True)
            check(tree)
            _admit(layout, aside, bound)
            made = make(layout, tree, order["source"], bound)
        finally:
            remove_tree(aside)
        write_json(layout.record(key), {"key": made["key"], "sha256": digest, "checked": time.time()})
    return dict(made, state="fetched")


def _gather(
    members: Iterator[Member], aside: bytes, most: Optional[int], name: str
) -> Tuple[List[Sequence[str]], List[str]]:
    """Write the files of an archive to a folder, each named after its content; return the rows and the folders."""
    rows: List[Sequence[str]] = []
    known: Dict[str, Sequence[str]] = {}
    folders, left = [], most
    try:
        for number, member in enumerate(members):
            place = _place_of(member.name)
            if number >= _MOST_MEMBERS:
                raise Problem("too_large", "%s holds more than %d members" % (name, _MOST_MEMBERS))
            if member.kind == FOLDER:
                folders += [place] if place else []
                continue
            if member.kind == SAME:
                row = [place, *known.get(_place_of(member.target), [PLAIN, PLAIN, "a link to nothing"])[1:]]
            elif member.kind == LINK:
                row = [place, LINK, member.target]
            else:
                content, size = _write(member, aside, left)
                left = None if left is None else left - size
                row = [place, member.kind, content]
            rows.append(row)
            known[place] = row
    except OSError as error:
        # A damaged archive has no number, or leads to before its begin; all else is the disk.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise Problem("bad_archive", "%s can't be unpacked: %s" % (name, error))
    except BROKEN as error:
        raise Problem("bad_archive", "%s can't be unpacked: %s" % (name, error))
    return rows, sorted(set(folders))


def _write(member: Member, aside: bytes, left: Optional[int]) -> Tuple[str, int]:
    digest, size, part = hashlib.sha256(), 0, os.path.join(aside, b"part")
    with member.open() as content, open(part, "wb") as file:
        for chunk in iter(lambda: content.read(CHUNK), b""):
            size += len(chunk)
            if left is not None and size > left:
                raise Problem("too_large", "what the archive holds is larger than allowed (%r)" % member.name)
            digest.update(chunk)
            file.write(chunk)
    os.rename(part, os.path.join(aside, (digest.hexdigest() + member.kind).encode()))
    return digest.hexdigest(), size


def _admit(layout: Layout, aside: bytes, bound: Optional[int]) -> None:
    names = [name.decode() for name in os.listdir(aside)]
    new = [name for name in names if not os.path.exists(layout.object(name[64:], name[:64]))]
    size = sum(os.path.getsize(os.path.join(aside, name.encode())) for name in new)
    make_room(layout, bound, size, new=size)
    for name in names:
        layout.admit(os.path.join(aside, name.encode()), name[64:], name[:64])


def _place_of(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return ("/" if name.startswith("/") else "") + "/".join(parts)
