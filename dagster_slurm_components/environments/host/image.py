"""Lets a container runtime of this host fetch an image, or make one of an archive: one file, only to be read."""

import os
import shutil
from pathlib import Path

from dagster_slurm_components.environments.host.tools import Env, Json, Problem, execute

_PULL = {
    "apptainer": ["apptainer", "pull", "--force", "TARGET", "IMAGE"],
    "singularity": ["singularity", "pull", "--force", "TARGET", "IMAGE"],
    "pyxis": ["enroot", "import", "--output", "TARGET", "IMAGE"],
}
"""Command line by runtime."""
_CACHES = ("APPTAINER_CACHEDIR", "SINGULARITY_CACHEDIR", "ENROOT_CACHE_PATH")


def pull(order: Json, content: Path, target: Path, env: Env) -> None:
    """Make the file ``target``; what an archive is called is relative to ``content``.

    The layers lie in the store's cache, unless the user has chosen another: a fetch that was broken off goes on.
    """
    wanted = order["manifest"]["inputs"]
    words = {"TARGET": str(target), "IMAGE": wanted["image"]}
    argv = [words.get(word, word) for word in _PULL[wanted["runtime"]]]
    if shutil.which(argv[0], path=env.get("PATH", os.defpath)) is None:
        raise Problem(
            "no_runtime", "there is no %s on this host, which is to fetch %s" % (argv[0], wanted["image"])
        )
    cache = Path(order["workdir"], "store", "cache", "images")
    cache.mkdir(0o700, parents=True, exist_ok=True)
    execute(argv, dict(dict.fromkeys(_CACHES, str(cache)), **env), content)
    target.chmod(0o400)
