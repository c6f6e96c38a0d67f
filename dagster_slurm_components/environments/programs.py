"""The programs of this machine that make environments: found, and run with their own words as the error."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from dagster_slurm_components.errors import EnvironmentFailedError

_TAIL = 2000


@functools.cache
def find_program(name: str, kind: str) -> tuple[str, str]:
    """Return path and version of a program: of the package installed beside this Python, else the one on PATH.

    Args:
        name: The program, and the package that brings it.
        kind: The type of environment, and the extra, that needs it.

    Raises:
        EnvironmentFailedError: There is none.
    """
    scripts = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    scripts.append(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
    program = shutil.which(name, path=os.pathsep.join(scripts)) or shutil.which(name)
    if program is None:
        raise EnvironmentFailedError(
            f"environments of type `{kind}` need the program {name}, which is not on this machine",
            hint=f"pip install 'dagster-slurm-components[{kind}]'",
        )
    return program, run_program([program, "--version"], where=program).split()[1]


def find_uv() -> tuple[str, str]:
    """Return path and version of uv."""
    return find_program("uv", "uv")


def run_program(
    argv: Sequence[str],
    *,
    where: str,
    says: str = "",
    hint: str | None = None,
    code: str = "failed",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program of this machine and return what it printed.

    Args:
        argv: The command.
        where: The file or folder that it works on, for the error.
        says: How the error begins, before the program's own words; by default ``PROGRAM says``.
        hint: What to do about it.
        code: The error's word for programs.
        cwd: Where it runs.
        env: Its variables; by default ours.

    Raises:
        EnvironmentFailedError: It failed.
    """
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()[-_TAIL:]
        says = says or f"{Path(argv[0]).name} says"
        raise EnvironmentFailedError(f"{says}: {words}", code=code, where=where, hint=hint)
    return done.stdout.decode("utf-8", "replace")
