"""Looks after the environments that are there: lists, verifies and prunes them."""

import time
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from dagster_slurm_components.environments.host.build import check, lock_of, put_away, ready, remove_left
from dagster_slurm_components.environments.host.running import in_use
from dagster_slurm_components.environments.host.tools import Json, Problem, hash_of, size_of
from dagster_slurm_components.hosts.satellite.files import remove_tree
from dagster_slurm_components.hosts.satellite.locks import locked
from dagster_slurm_components.hosts.satellite.protocol import Failure

_DAY = 86400.0


def _environments(workdir: Path) -> Iterator[Tuple[Path, Json]]:
    for folder in sorted(workdir.glob("envs/[!.]*")):
        manifest = ready(folder)
        if manifest is not None:
            yield folder, manifest


def _last_use(folder: Path, manifest: Json) -> float:
    """Return when a job last began in an environment; when it was made, if none has."""
    try:
        return (folder / ".used").stat().st_mtime
    except FileNotFoundError:
        return float(manifest["created"])


def show(order: Json) -> Json:
    """Return all environments, with when they were last used, and the store's size."""
    rows, workdir = [], Path(order["workdir"])
    for folder, manifest in _environments(workdir):
        manifest.pop("installed", None)
        rows.append(dict(manifest, used=_last_use(folder, manifest)))
    store = workdir / "store"
    total, count = size_of(store) if store.is_dir() else (0, 0)
    return {"environments": rows, "store": {"bytes": total, "inodes": count}}


def verify(order: Json) -> Json:
    """Return what each environment differs in from its manifest."""
    results: Dict[str, List[str]] = {}
    for folder, manifest in _environments(Path(order["workdir"])):
        entry = folder / manifest["entry"]
        try:
            if not entry.exists():
                raise Problem("differs", "%s is missing" % entry.name)
            if entry.name == "prefix":
                if manifest.get("installed") is not None:
                    check(order["check"], folder, manifest, published=True)
            elif order["check"]["mode"] == "full":
                digest = manifest.get("image") or manifest["artifacts"][0][1]
                if hash_of(entry) != digest:
                    raise Problem("differs", "%s has another content than was published" % entry.name)
            results[folder.name] = []
        except Problem as problem:
            results[folder.name] = problem.detail or [problem.message]
    return {"differences": results}


def prune(order: Json) -> Json:
    """Remove environments that nobody refers to and nobody used for a while, and what only they were made from."""
    workdir, now = Path(order["workdir"]), time.time()
    rows = list(_environments(workdir))
    running = in_use(workdir, "activate.args", [folder.name for folder, _ in rows])
    removed, kept = [], {}
    for folder, manifest in rows:
        key, used = folder.name, _last_use(folder, manifest)
        if key in order["keep"]:
            kept[key] = "a script of this profile needs it"
        elif key in running:
            kept[key] = "a job that has not ended uses it"
        elif now - used < order["unused_for"]:
            kept[key] = "used %.1f days ago" % ((now - used) / _DAY)
        elif order["dry_run"] or _take_away(folder):
            removed.append((key, manifest["name"], manifest["bytes"]))
        else:
            kept[key] = "it is being built"
    freed = 0 if order["dry_run"] else _sweep(workdir, removed != [])
    return {"removed": removed, "kept": kept, "freed": freed}


def _take_away(folder: Path) -> bool:
    """Remove an environment in two steps: out of sight at once, then its files."""
    try:
        with locked(lock_of(folder.parent, folder.name), 0):
            put_away(folder)
    except Failure:
        return False
    remove_left(folder.parent, ".removing-%s-" % folder.name)
    return True


def _sweep(workdir: Path, shared: bool) -> int:
    """Remove artifacts that no environment was made from, and what killed builds and uploads left; return bytes."""
    old, store = time.time() - _DAY, workdir / "store"
    needed = {row[1] for _, manifest in _environments(workdir) for row in manifest["artifacts"]}
    unneeded = [path for path in store.glob("??/*") if path.name not in needed]
    left = [path for path in [*store.glob("incoming/*"), *unneeded] if path.stat().st_mtime < old]
    left += workdir.glob("envs/.removing-*")
    if shared:  # hard links: what living environments share with the cache stays theirs
        left.append(store / "cache")
    freed = 0
    for path in left:
        if path.exists():
            freed += size_of(path)[0] if path.is_dir() else path.stat().st_size
            remove_tree(str(path))
    return freed
