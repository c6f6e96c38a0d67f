"""Unpack the Environment Modules of Debian for tests: they can't be installed beside Lmod, nor two versions at once.

Usage: module_tools.py [NAME...], all of them by default. They lie beside the frameworks' environments
(``framework_venvs.py``) and are made once; several processes may ask for one at the same time.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.debian_mirror import mirror
from scripts.framework_venvs import folder
from scripts.making import CannotMakeError, exit_code
from slurm_testcluster.lock import folder_lock

SUITES = {"modules-5": "bookworm", "modules-4": "bullseye"}
"""The release of Debian that has each: 5.2.0, 4.6.1."""
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def ensure(name: str) -> Path:
    """Return a MODULESHOME, unpacked if need be.

    Raises:
        CannotMakeError: It can't be had here.
    """
    root = folder() / name
    home = root / "usr" / "share" / "modules"
    done = root / "unpacked"
    # Its files name the place where they lie.
    wanted = f"{SUITES[name]} {home}"
    with folder_lock(folder() / f"{name}.lock"):
        if not (done.exists() and done.read_text() == wanted):
            with tempfile.TemporaryDirectory() as parent:
                _unpack(SUITES[name], Path(parent), root)
            _relocate(root)
            _run(["bash", "-c", '. "$1/init/bash" && module list', "-", str(home)])
            done.write_text(wanted)
    return home


def _unpack(suite: str, work: Path, root: Path) -> None:
    """Fetch the package by apt, which proves its signature, with lists and a cache of its own."""
    source = mirror()
    if source is None:
        raise CannotMakeError("no mirror of Debian is known here: name one in DAGSTER_SLURM_MIRROR")
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={_KEYS}] {source} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    _run([*apt, "update"], work)
    _run([*apt, "download", "environment-modules"], work)
    for package in work.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(package), str(root)], work)


def _relocate(root: Path) -> None:
    """Let its files name each other where they are now."""
    for path in [
        *root.glob("usr/share/modules/init/*"),
        *root.glob("usr/lib/**/modulecmd*"),
        *root.glob("etc/**/*"),
    ]:
        if path.is_file() and not path.is_symlink():
            text = path.read_text(errors="surrogateescape")
            text = re.sub(
                r"(?<![\w/])/(?=usr/share/modules|usr/lib/|etc/environment-modules)", f"{root}/", text
            )
            path.write_text(text, errors="surrogateescape")


def _run(argv: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            argv, cwd=cwd, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise CannotMakeError(str(error)) from error
    if done.returncode != 0:
        raise CannotMakeError(f"{argv[0]} {argv[-1]}: {(done.stderr or done.stdout)[-1000:].strip()}")


def main() -> int:
    """Unpack those that are named on the command line."""
    return exit_code(lambda: [print(ensure(name)) for name in sys.argv[1:] or SUITES])


if __name__ == "__main__":
    sys.exit(main())
