"""Make the virtual environments with PyTorch, Ray, Jupyter and tables that the larger example and tests run in.

Usage: framework_venvs.py [NAME...], all of them by default. They lie in ``.venvs``, or in the folder that
DAGSTER_SLURM_TEST_VENVS names, and are made once; several processes may ask for one at the same time.

PyPI's PyTorch for Linux brings CUDA's libraries along, gigabytes of them. Where pip can reach it,
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes the build for CPUs, which is all that is needed here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.making import CannotMakeError, exit_code
from slurm_testcluster.lock import folder_lock

_PATIENCE = 1800


@dataclass(frozen=True)
class Framework:
    """A virtual environment to make.

    Attributes:
        name: Its folder's name.
        packages: What pip installs. pip, and not uv: uv does not read pip's settings (folders of wheels, mirrors).
    """

    name: str
    packages: tuple[str, ...]

    def ensure(self) -> Path:
        """Return the environment's folder, made if need be.

        Raises:
            CannotMakeError: It can't be made.
        """
        prefix = folder() / self.name
        done = prefix / "installed"
        wanted = "\n".join(self.packages)
        with folder_lock(folder() / f"{self.name}.lock"):
            # An interpreter that was removed or replaced leaves a dead link in `bin`.
            alive = (prefix / "bin" / "python").exists()
            if not (alive and done.exists() and done.read_text() == wanted):
                _install(prefix, self.packages)
                done.write_text(wanted)
        return prefix


TORCH = Framework("torch", ("torch==2.13.0", "numpy", "scikit-learn"))
RAY = Framework("ray", ("ray[default]", "numpy", "scikit-learn"))
NOTEBOOKS = Framework(
    "notebooks", ("nbclient", "ipykernel", "nbconvert", "papermill", "bash_kernel", "marimo")
)
TABLES = Framework("tables", ("pandas", "pyarrow", "polars"))
FRAMEWORKS = {framework.name: framework for framework in (TORCH, RAY, NOTEBOOKS, TABLES)}


def folder() -> Path:
    """Return where the environments lie."""
    chosen = os.environ.get("DAGSTER_SLURM_TEST_VENVS")
    return Path(chosen).resolve() if chosen else Path(__file__).resolve().parents[1] / ".venvs"


def _install(prefix: Path, packages: tuple[str, ...]) -> None:
    print(f"installing {', '.join(packages)} into {prefix} (minutes)", file=sys.stderr, flush=True)
    commands = (
        (sys.executable, "-m", "venv", "--clear", str(prefix)),
        (str(prefix / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages),
    )
    for argv in commands:
        try:
            completed = subprocess.run(
                argv, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CannotMakeError(f"{' '.join(argv)}: not done after {_PATIENCE} s") from error
        if completed.returncode != 0:
            raise CannotMakeError(f"{' '.join(argv)}: {completed.stderr[-2000:] or completed.stdout[-2000:]}")


def main() -> int:
    """Make the environments that are named on the command line."""
    names = sys.argv[1:] or list(FRAMEWORKS)
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(FRAMEWORKS)}", file=sys.stderr)
        return 2
    return exit_code(lambda: [FRAMEWORKS[name].ensure() for name in names])


if __name__ == "__main__":
    sys.exit(main())
