"""This machine: its cache of what was fetched, built and planned before, and the programs that make environments."""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster_slurm_components.environments.host.tools import new_file, size_of
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.hosts.satellite.files import remove_tree
from dagster_slurm_components.hosts.satellite.locks import locked

_KINDS = (
    "built",
    "conda",
    "fetched",
    "hashes",
    "packed",
    "pixi-pack",
    "plans",
    "pylock",
    "rattler",
    "tools",
    "trees",
    "urls",
)
_ENTRIES = ("files/*/*", "inputs/data/objects/*/*", "inputs/data/trees/*", *(f"{kind}/*" for kind in _KINDS))
"""What of the cache goes as one. Locks stay: one that is removed while it is held keeps nobody out."""
_DAY = 86400.0
_LOGIN = re.compile(r"(?<=://)[^\s/@]+@")


def cache_folder(*parts: str) -> Path:
    """Return a folder of the cache (DAGSTER_SLURM_CACHE, else in the user's), made 0700 if missing, and use it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dagster-slurm"
    named = os.environ.get("DAGSTER_SLURM_CACHE")
    folder = (Path(named).expanduser().absolute() if named else base).joinpath(*parts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    use(folder)
    return folder


def use(path: Path) -> None:
    """Note that something of the cache is used."""
    with contextlib.suppress(OSError):  # a cache that came with a container's image is only read
        os.utime(path)


def trim_cache(unused_for: float, *, dry_run: bool = False) -> int:
    """Remove from the cache what was not used for so many seconds, a day at least, and return its bytes.

    What is younger may be in use just now. With ``dry_run`` nothing is removed.
    """
    before, freed = time.time() - max(unused_for, _DAY), 0
    for path in [path for pattern in _ENTRIES for path in cache_folder().glob(pattern)]:
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if path.lstat().st_mtime < before:
                freed += size_of(path)[0] if path.is_dir() else path.lstat().st_size
                if not dry_run:
                    remove_tree(str(path))
    return freed


def digest_of(*parts: object) -> str:
    """Return a hash of JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def remember(kind: str, name: str, value: Any) -> None:
    """Keep a JSON value."""
    with new_file(cache_folder(kind) / f"{name}.json") as file:
        file.write_text(json.dumps(value), encoding="utf-8")


def recall(kind: str, name: str, max_age: float = math.inf) -> Any:
    """Return a kept value, at most so many seconds old, or None. A broken file counts as none."""
    path = cache_folder(kind) / f"{name}.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if abs(time.time() - path.stat().st_mtime) < max_age else None
    except (FileNotFoundError, ValueError):
        return None


def only_one(name: str) -> contextlib.AbstractContextManager[None]:
    """Let only one process of this machine be inside at a time; a killed one is out."""
    return locked(os.fsencode(cache_folder("locks") / f"{name}.lock"), math.inf, pause=0.5)


@functools.cache
def find_program(name: str, kind: str) -> tuple[str, str]:
    """Return path and version of a program that a type of environment needs: beside this Python, else on PATH.

    Raises:
        EnvironmentFailedError: There is none; the package of its name comes with the extra of the type's name.
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
    """Run a program of this machine on the file or folder ``where``, and return what it printed.

    Raises:
        EnvironmentFailedError: It failed. ``says``, by default ``PROGRAM says``, stands before the program's own words.
    """
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        words = _LOGIN.sub("", done.stderr.decode("utf-8", "replace").strip()[-2000:])
        says = says or f"{Path(argv[0]).name} says"
        raise EnvironmentFailedError(f"{says}: {words}", code=code, where=where, hint=hint)
    return done.stdout.decode("utf-8", "replace")
