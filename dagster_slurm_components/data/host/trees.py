"""Makes an input of objects, once, whoever wants it at the same time, aside, and publishes it by rename."""

import errno
import os
import shutil
import stat
import time
from pathlib import Path
from typing import List, Optional, Tuple

from dagster_slurm_components.data.host.care import make_room
from dagster_slurm_components.data.host.content import EXECUTABLE, LINK, PLAIN, Tree, above, check, tree_key
from dagster_slurm_components.data.host.layout import MODES, Layout, room_on_disk
from dagster_slurm_components.environments.host.tools import CHUNK, Json, Problem, new_file
from dagster_slurm_components.hosts.satellite.files import remove_tree, write_json
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import native

_PATIENCE = 3600.0
# A file system without hard links, or, as BeeGFS, with some only within one folder.
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


def link(order: Json) -> Json:
    """Make an input of objects that are there; the Problem ``missing`` names those that are not."""
    tree = Tree(order["name"], order["rows"], order["folders"], order["is_folder"])
    layout = Layout(order["workdir"])
    with room_on_disk(layout):
        return make(layout, tree, order["source"], order.get("bound"))


def asked(layout: Layout, key: str) -> Optional[Json]:
    """Return what an input is, if it is there, and ask for it."""
    with locked(layout.lock(b"trees", key), _PATIENCE, pause=0.2):
        return layout.ask(key)


def make(layout: Layout, tree: Tree, source: str, bound: Optional[int]) -> Json:
    """Make an input unless it is there, and return what it is, with the ``state`` ``made`` or ``ready``.

    All inputs together stay within ``bound`` bytes (``care.make_room``).
    """
    check(tree)
    key = tree_key(*tree)
    with locked(layout.lock(b"trees", key), _PATIENCE, pause=0.2):
        ready, aside = layout.ask(key), layout.tree(key, "making")
        if ready is not None:
            return ready
        remove_tree(aside)
        try:
            os.mkdir(aside, 0o700)
            size, copied, inodes = _lay_out(layout, tree, aside)
            make_room(layout, bound, size, new=copied)  # its objects have a second link by now, so they stay
            facts = {"key": key, "name": tree.name, "source": source, "bytes": size, "count": len(tree.rows)}
            facts.update(made=time.time(), copied=copied, inodes=inodes)
            write_json(os.path.join(aside, b".ready"), facts)
            remove_tree(layout.tree(key))  # one that has lost its `.ready`, as by a crash of the disk
            os.rename(aside, layout.tree(key))
        except BaseException:
            remove_tree(aside)
            raise
    return dict(facts, state="made")


def _lay_out(layout: Layout, tree: Tree, root: bytes) -> Tuple[int, int, int]:
    """Lay out an input; return its bytes, those that are copies, and the inodes that it takes beside its objects."""
    base = os.path.join(root, native(tree.name))
    inner = sorted(above([*(row[0] for row in tree.rows), *tree.folders]).union(tree.folders))
    folders = [os.path.join(base, native(each)) for each in inner]
    for folder in [base, *folders] if tree.is_folder else []:
        os.mkdir(folder, 0o700)
    size, copied, inodes, missing = 0, 0, 3 + len(folders), []
    for relative, kind, content in tree.rows:
        path = os.path.join(base, native(relative)) if relative else base
        if kind == LINK:
            os.symlink(native(content), path)
            inodes += 1
            continue
        try:
            _place(layout, kind, content, path)
        except FileNotFoundError:
            missing.append(content + kind)
            continue
        facts = os.lstat(path)
        size += facts.st_size
        if facts.st_nlink == 1:
            copied, inodes = copied + facts.st_size, inodes + 1
        if stat.S_IMODE(facts.st_mode) != MODES[kind]:
            os.chmod(path, MODES[kind])
    if missing:
        raise _missing(missing)
    for folder in [*reversed(folders), base] if tree.is_folder else []:
        os.chmod(folder, 0o500)
    return size, copied, inodes


def _missing(names: List[str]) -> Problem:
    wanted = sorted(set(names))
    return Problem("missing", "%d files of the input are not on the host" % len(wanted), wanted)


def _place(layout: Layout, kind: str, sha256: str, path: bytes) -> None:
    source = layout.object(kind, sha256)
    try:
        os.link(source, path)
    except FileNotFoundError:  # known with another mode, perhaps
        _copy(layout.object(PLAIN if kind == EXECUTABLE else EXECUTABLE, sha256), source, kind)
        os.link(source, path)
    except OSError as error:
        if error.errno in _NO_LINKS:
            _copy(source, path, kind)
        elif (
            error.errno == errno.EMLINK
        ):  # ext4 allows 65,000: those keep the old file, the next get a new one
            _copy(source, source, kind)
            os.link(source, path)
        else:
            raise


def _copy(source: bytes, target: bytes, kind: str) -> None:
    with open(source, "rb") as old, new_file(Path(os.fsdecode(target))) as path:
        with path.open("wb") as new:
            shutil.copyfileobj(old, new, CHUNK)
        path.chmod(MODES[kind])
