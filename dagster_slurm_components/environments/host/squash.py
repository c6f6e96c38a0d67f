"""An environment as one file: a squashfs image, for file systems on which files are counted."""

import os
import shutil
import subprocess

from dagster_slurm_components.environments.host.commands import Env, execute
from dagster_slurm_components.environments.host.files import Problem


def squash(prefix: str, image: str, env: Env) -> None:
    """Write the image of a prefix, by ``mksquashfs`` as it is found under these variables."""
    path = env.get("PATH", os.defpath)
    program = shutil.which("mksquashfs", path=path + ":/usr/sbin:/sbin")
    if program is None:
        raise Problem(
            "no_squashfs", "`form: squashfs` needs the program mksquashfs, which is not on PATH (%s)" % path
        )
    said = subprocess.run(
        [program, "-help"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # zstd at level 3 takes a seventh of gzip's time and unpacks faster; old squashfs-tools are built without it.
    packed = ["zstd", "-Xcompression-level", "3"] if b"zstd" in said.stdout else ["gzip"]
    execute(
        [program, prefix, image, "-noappend", "-quiet", "-no-progress", "-no-xattrs", "-comp", *packed], env
    )
