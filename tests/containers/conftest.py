"""Images for tests of real container runtimes: made here, of this system's own Python, for no registry is in reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REQUIRED = os.environ.get("DAGSTER_SLURM_REQUIRE_CONTAINERS") == "1"
PYTHON = "/usr/bin/python3"

# As root, Apptainer asks for capabilities that a root user of a container or of a test may lack.
APPTAINER = "runtime: apptainer" + (", options: [--userns]" if os.getuid() == 0 else "")


def runtime_or_skip(program: str) -> None:
    """Skip where a runtime is missing, or fail if DAGSTER_SLURM_REQUIRE_CONTAINERS=1."""
    if shutil.which(program) is None:
        assert not REQUIRED, f"there is no {program} here"
        pytest.skip(
            f"no {program} here; the root of Debian unstable that `make test-containers` makes has it"
        )


def make_folder(folder: Path) -> Path:
    """Make an image as a folder: sh, env and this system's Python, and variables of its own."""
    for name in (
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "proc",
        "sys",
        "dev",
        "tmp",
        "var/tmp",
        "root",
        "home",
        "mnt",
    ):
        (folder / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (folder / name).symlink_to(f"usr/{name}")
    programs = ["/bin/sh", "/usr/bin/env", PYTHON]
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = {word for word in said.split() if word.startswith("/") and not word.endswith(":")}
    for name in [*programs, *libraries]:
        target = folder / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(name), target)
    version = Path(PYTHON).resolve().name
    skip = shutil.ignore_patterns(
        "test", "__pycache__", "idlelib", "tkinter", "pydoc_data", "ensurepip", "config-*"
    )
    shutil.copytree(f"/usr/lib/{version}", folder / "usr/lib" / version, ignore=skip, symlinks=False)
    (folder / "etc" / "image").write_text("the tests' image\n")
    environment = folder / ".singularity.d" / "env"
    environment.mkdir(parents=True)
    variables = (
        "GREETING=image",
        "SLURM_PROCID=99",
        "ONLY_IMAGE=image",
        "PYTHONPATH=/image/lib",
        "CUDA_VISIBLE_DEVICES=7",
    )
    (environment / "90-environment.sh").write_text(f"export {' '.join(variables)}\n")
    (folder / "ch").mkdir()  # where Charliecloud has them
    (folder / "ch" / "environment").write_text("\n".join(variables) + "\n")
    for name in ("passwd", "group"):
        (folder / "etc" / name).touch()
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image as a folder."""
    return make_folder(tmp_path_factory.mktemp("image") / "root")
