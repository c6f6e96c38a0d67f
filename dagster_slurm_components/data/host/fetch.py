"""Fetches what a URL names, once for all that want it, and only if it is not here or may have changed."""

import contextlib
import os
import re
import time
from typing import Callable, Iterator, Optional
from urllib.parse import urlsplit

from dagster_slurm_components.data.host.care import make_room
from dagster_slurm_components.data.host.content import PLAIN, Tree, check, is_hash, tree_key
from dagster_slurm_components.data.host.download import Wanted, download, forget, shown
from dagster_slurm_components.data.host.layout import Layout, identity, lowest, room_on_disk
from dagster_slurm_components.data.host.trees import asked, make
from dagster_slurm_components.data.host.unpack import unpack_file, unpacked
from dagster_slurm_components.environments.host.store import without_login
from dagster_slurm_components.environments.host.tools import Json, Problem, hash_of
from dagster_slurm_components.hosts.satellite.files import read_json, write_json
from dagster_slurm_components.hosts.satellite.locks import acquire, locked

_PATIENCE = 24 * 3600.0
_URL = re.compile(r"[\x21-\x7e]+\Z")


def fetch(order: Json, sleep: Callable[[float], None] = time.sleep) -> Json:
    """Make an input of what a URL names.

    With a ``sha256`` that is here already nothing is asked; else the server, unless it was in the last ``fresh``
    seconds, and what is as it was is not sent again: ``state`` is ``ready``, ``unchanged`` or ``fetched``.
    """
    _check(order)
    layout, order = Layout(order["workdir"]), dict(order, source=shown(order["url"]))
    key = identity("url", without_login(order["url"]), order["name"], order["unpack"])
    record = layout.record(key)
    with room_on_disk(layout), locked(layout.lock(b"urls", key), _PATIENCE, pause=0.5):
        known: Json = read_json(record) or {}
        digest = order["sha256"] or known.get("sha256")
        there = _adopt(layout, order, digest) if digest else None
        if there is None:
            known = {}
        elif order["sha256"] or 0 <= time.time() - known["checked"] < order["fresh"]:
            return dict(there, sha256=digest, state="ready")
        part = os.path.join(layout.folder(b"incoming"), key.encode() + b".part")
        with _slot(layout, order["at_once"], sleep):
            facts = download(_wanted(layout, order, part, known, sleep))
        try:
            if there and facts is None:
                state = "unchanged"
            else:
                digest, state = _take(order, part), "fetched"
                there = _adopt(layout, order, digest) or _make(layout, order, part, digest)
                known = dict(facts or {}, url=order["source"], sha256=digest, key=there["key"])
            write_json(record, dict(known, checked=time.time()))
        finally:
            forget(part)
    return dict(there, sha256=digest, state=state)


def _check(order: Json) -> None:
    url = order["url"]
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if not good or not _URL.match(url):
        raise Problem("bad_url", "an input's URL must be http(s)://HOST/..., with %XX for what is not ASCII")
    check(_single(order, "0" * 64))
    if order["sha256"] and not is_hash(order["sha256"]):
        raise Problem("bad_hash", "sha256 must be 64 hex digits in lower case, not %r" % order["sha256"])


def _adopt(layout: Layout, order: Json, digest: str) -> Optional[Json]:
    """Return the input that this content is, if it, or the content, is here."""
    key = tree_key(*_single(order, digest))
    found = unpacked(layout, order["name"], digest) if order["unpack"] else asked(layout, key)
    if found is not None:
        return found
    content = layout.object(PLAIN, digest)
    try:
        os.utime(content)  # it is needed
    except FileNotFoundError:
        return None
    if order["unpack"]:
        return unpack_file(layout, content, digest, order)
    return make(layout, _single(order, digest), order["source"], order["bound"])


def _single(order: Json, digest: str) -> Tree:
    return Tree(order["name"], [["", PLAIN, digest]], [], is_folder=False)


@contextlib.contextmanager
def _slot(layout: Layout, count: int, sleep: Callable[[float], None]) -> Iterator[None]:
    """Be one of so many that fetch at a time."""
    folder = layout.folder(b"incoming")
    while True:
        for number in range(max(1, count)):
            release = acquire(os.path.join(folder, b".lock-slot-%d" % number))
            if release is not None:
                try:
                    yield
                finally:
                    release()
                return
        sleep(0.5)


def _wanted(layout: Layout, order: Json, part: bytes, known: Json, sleep: Callable[[float], None]) -> Wanted:
    def expect(size: int) -> None:
        if order["most"] is not None and size > order["most"]:
            said = "%s: its %d bytes are more than the %d that are allowed"
            raise Problem("too_large", said % (order["source"], size, order["most"]))
        make_room(layout, order["bound"], size, new=size)

    return Wanted(
        order["url"], part, known, order["rate"], lowest(order["most"], order["bound"]), expect, sleep
    )


def _take(order: Json, part: bytes) -> str:
    digest = hash_of(os.fsdecode(part))
    if order["sha256"] not in (None, digest):
        said = "%s has the SHA-256 %s, and not %s as is wanted: nothing of it is kept"
        raise Problem(
            "wrong_hash", said % (order["source"], digest, order["sha256"]), [digest, order["sha256"]]
        )
    return digest


def _make(layout: Layout, order: Json, part: bytes, digest: str) -> Json:
    size = os.path.getsize(part)
    if order["unpack"]:
        return unpack_file(layout, part, digest, order)
    make_room(layout, order["bound"], size, new=size)
    layout.admit(part, PLAIN, digest)
    return make(layout, _single(order, digest), order["source"], order["bound"])
