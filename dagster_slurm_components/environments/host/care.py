"""Looks after the environments that are there: lists, verifies and prunes them."""

import contextlib
import glob
import os
import time
from typing import Dict, Iterator, List, Set, Tuple

from dagster_slurm_components.environments.host.build import check, lock_of, put_away, ready, remove_left
from dagster_slurm_components.environments.host.tools import Json, Problem, hash_of, size_of
from dagster_slurm_components.hosts.satellite.files import remove_tree
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import Failure

_DAY = 86400.0


def environments(workdir: str) -> Iterator[Tuple[str, str, Json]]:
    """Yield key, folder and manifest of each environment."""
    for folder in sorted(glob.glob(os.path.join(glob.escape(workdir), "envs", "*"))):
        manifest = ready(folder)
        if manifest is not None:
            yield os.path.basename(folder), folder, manifest


def last_use(folder: str, manifest: Json) -> float:
    """Return when a job last began in an environment; when it was made, if none has."""
    try:
        return os.stat(os.path.join(folder, ".used")).st_mtime
    except FileNotFoundError:
        return float(manifest["created"])


def show(order: Json) -> Json:
    """Return all environments, with when they were last used, and the store's size."""
    rows = []
    for _, folder, manifest in environments(order["workdir"]):
        manifest.pop("installed", None)
        rows.append(dict(manifest, used=last_use(folder, manifest)))
    store = os.path.join(order["workdir"], "store")
    total, count = size_of(store) if os.path.isdir(store) else (0, 0)
    return {"environments": rows, "store": {"bytes": total, "inodes": count}}


def verify(order: Json) -> Json:
    """Return what each environment differs in from its manifest."""
    results: Dict[str, List[str]] = {}
    for key, folder, manifest in environments(order["workdir"]):
        try:
            if not os.path.exists(os.path.join(folder, manifest["entry"])):
                raise Problem("differs", "%s is missing" % manifest["entry"])
            if manifest["entry"] == "prefix":
                if manifest.get("installed") is not None:
                    check(order["check"], folder, manifest, published=True)
            elif order["check"]["mode"] == "full":
                digest = manifest.get("image") or manifest["artifacts"][0][1]
                if hash_of(os.path.join(folder, manifest["entry"])) != digest:
                    raise Problem("differs", "%s has another content than was published" % manifest["entry"])
            results[key] = []
        except Problem as problem:
            results[key] = problem.detail or [problem.message]
    return {"differences": results}


def in_use(workdir: str, keys: List[str]) -> List[str]:
    """Return the keys that a job which has not ended refers to: submitted, and no exit in its status."""
    used: Set[str] = set()
    for args in glob.glob(os.path.join(glob.escape(workdir), "runs", "**", "activate.args"), recursive=True):
        status = b""
        with contextlib.suppress(OSError), open(os.path.join(os.path.dirname(args), "status"), "rb") as file:
            status = file.read().rpartition(b"restart=")[2]
        if any(line.startswith(b"exit=") for line in status.splitlines()):
            continue
        with contextlib.suppress(OSError), open(args, "rb") as file:
            content = file.read()
            used.update(key for key in keys if key.encode() in content)
    return sorted(used)


def prune(order: Json) -> Json:
    """Remove environments that nobody refers to and nobody used for a while, and what only they were made from."""
    workdir, now = order["workdir"], time.time()
    rows = list(environments(workdir))
    running = in_use(workdir, [key for key, _, _ in rows])
    removed, kept = [], {}
    for key, folder, manifest in rows:
        used = last_use(folder, manifest)
        if key in order["keep"]:
            kept[key] = "a script of this profile needs it"
        elif key in running:
            kept[key] = "a job that has not ended uses it"
        elif now - used < order["unused_for"]:
            kept[key] = "used %.1f days ago" % ((now - used) / _DAY)
        elif order["dry_run"] or take_away(workdir, key):
            removed.append((key, manifest["name"], manifest["bytes"]))
        else:
            kept[key] = "it is being built"
    freed = 0 if order["dry_run"] else sweep(workdir, removed != [])
    return {"removed": removed, "kept": kept, "freed": freed}


def take_away(workdir: str, key: str) -> bool:
    """Remove an environment in two steps: out of sight at once, then its files."""
    envs = os.path.join(workdir, "envs")
    try:
        with locked(lock_of(envs, key), 0):
            put_away(os.path.join(envs, key))
    except Failure:
        return False
    remove_left(envs, ".removing-%s-" % key)
    return True


def sweep(workdir: str, shared: bool) -> int:
    """Remove artifacts that no environment was made from, and what killed builds and uploads left; return bytes."""
    old = time.time() - _DAY
    needed = {row[1] for _, _, manifest in environments(workdir) for row in manifest["artifacts"]}
    store = os.path.join(glob.escape(workdir), "store")
    left = glob.glob(os.path.join(store, "incoming", "*"))
    left += [p for p in glob.glob(os.path.join(store, "??", "*")) if os.path.basename(p) not in needed]
    left = [path for path in left if os.stat(path).st_mtime < old]
    left += glob.glob(os.path.join(glob.escape(workdir), "envs", ".removing-*"))
    if shared:  # hard links: what living environments share with the cache stays theirs
        left.append(os.path.join(workdir, "store", "cache"))
    freed = 0
    for path in filter(os.path.exists, left):
        freed += size_of(path)[0] if os.path.isdir(path) else os.stat(path).st_size
        remove_tree(path)
    return freed
