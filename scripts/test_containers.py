"""Test containers on the newest Slurm: Apptainer, and an image with PyTorch and Ray, both brought along.

Usage: test_containers.py [PYTEST ARGUMENT...]

The image is made of a root of Debian 12 (slurm_roots.py), whose Python the packages of framework_venvs.py are for; the
tests of tests/containers run in the root of Debian unstable, as root. The first time this takes a quarter of an hour
and 4 GB in `.cache/roots`; what is there is used again. Needs root and debootstrap.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import slurm_roots
import test_slurms
from framework_venvs import RAY, TORCH
from slurm_roots import ROOTS, CannotMakeError, Root

IMAGE = Root("frameworks", "bookworm", ("ca-certificates", "python3", "python3-pip", "python-is-python3"))
PACKAGES = sorted({*TORCH.packages, *RAY.packages})
# zstd at its lowest level: a minute instead of six.
BUILD = ("apptainer", "build", "--userns", "--force", "--mksquashfs-args", "-comp zstd -Xcompression-level 1")


def image() -> Path:
    """Return the image, made if need be.

    Raises:
        CannotMakeError: It can't be made here.
    """
    made, wanted = slurm_roots.cache() / "frameworks.sif", "\n".join(PACKAGES)
    stamp = made.with_suffix(".packages")
    if made.exists() and stamp.exists() and stamp.read_text() == wanted:
        return made
    IMAGE.ensure()
    stamp.unlink(missing_ok=True)
    install = [
        "python3",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--root-user-action=ignore",
        "--break-system-packages",
    ]
    _run(IMAGE.argv([*install, *PACKAGES], slurm_roots.shared()))
    ROOTS["sid"].ensure()
    _run(ROOTS["sid"].argv([*BUILD, str(made), str(IMAGE.folder)], slurm_roots.shared()))
    stamp.write_text(wanted)
    return made


def _run(argv: list[str]) -> None:
    with open(os.devnull) as nothing:
        # enter_root.sh closes descriptor 9, a root's lock where there is one.
        os.dup2(nothing.fileno(), 9)
        done = subprocess.run(argv, stdin=nothing, check=False, pass_fds=(9,))
    if done.returncode != 0:
        raise CannotMakeError(f"{' '.join(argv[-3:])} ended with {done.returncode}; what is above says why")


def main() -> int:
    """Make what is missing and run the tests."""
    os.environ.setdefault("DAGSTER_SLURM_SCRATCH", str(slurm_roots.cache()))
    os.environ.setdefault("PYTEST_WORKERS", "1")
    try:
        made = image()
        told = {"IMAGE": made, "IMAGE_ROOT": IMAGE.folder}
        os.environ.update({f"DAGSTER_SLURM_TEST_{name}": str(path) for name, path in told.items()})
        os.environ["DAGSTER_SLURM_REQUIRE_CONTAINERS"] = "1"
        row = test_slurms.test("sid", "", ["tests/containers", *sys.argv[1:]])
    except CannotMakeError as error:
        print(error, file=sys.stderr)
        return 1
    print(row, *row.failed, sep="\n")
    return 1 if row.failed or not row.passed else 0


if __name__ == "__main__":
    sys.exit(main())
