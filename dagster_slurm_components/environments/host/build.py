"""Builds an environment once, whoever wants it at the same time, and publishes it by rename."""

import glob
import json
import os
import tempfile
import time
from typing import Optional

from dagster_slurm_components.environments.host.files import Json
from dagster_slurm_components.environments.host.make import make
from dagster_slurm_components.hosts.satellite.files import remove_tree
from dagster_slurm_components.hosts.satellite.locks import kept


def ready(folder: str) -> Optional[Json]:
    """Return the manifest of an environment that is there."""
    try:
        with open(os.path.join(folder, ".ready"), encoding="utf-8") as file:
            manifest: Json = json.load(file)
            return manifest
    except (FileNotFoundError, NotADirectoryError):
        return None


def lock_of(envs: str, key: str) -> bytes:
    """Return the lock under which an environment is made or put away."""
    return os.fsencode(os.path.join(envs, ".lock-" + key))


def build(order: Json) -> Json:
    """Make an environment, unless it is there; of all that want it at once one makes it."""
    envs = os.path.join(order["workdir"], "envs")
    target = os.path.join(envs, order["key"])
    os.makedirs(envs, 0o700, exist_ok=True)
    began = time.time()
    with kept(lock_of(envs, order["key"]), order["patience"]):
        manifest = ready(target)
        if manifest is not None and not order.get("rebuild"):
            for artifact in order["artifacts"]:  # sent though another machine had sent it just now
                remove_tree(os.path.join(order["workdir"], "store", "incoming", artifact["sha256"]))
            return {"state": "ready", "manifest": manifest, "seconds": time.time() - began}
        for left in glob.glob(glob.escape(os.path.join(envs, ".building-%s-" % order["key"])) + "*"):
            remove_tree(left)
        folder = tempfile.mkdtemp(prefix=".building-%s-" % order["key"], dir=envs)
        try:
            manifest = make(order, folder)
            put_away(target)
            os.rename(folder, target)
        except BaseException:
            remove_tree(folder)
            raise
    for old in glob.glob(os.path.join(glob.escape(envs), ".removing-%s-*" % order["key"])):
        remove_tree(old)
    return {"state": "built", "manifest": manifest, "seconds": time.time() - began}


def put_away(target: str) -> Optional[str]:
    """Move an environment out of sight; what runs in it keeps its open files."""
    folder, key = os.path.split(target)
    aside = os.path.join(folder, ".removing-%s-%s-%d" % (key, os.uname().nodename, os.getpid()))
    try:
        os.rename(target, aside)
    except FileNotFoundError:
        return None
    return aside
