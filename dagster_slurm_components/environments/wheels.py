"""Local projects and source archives as wheels: built here once for each content, whatever the file times say."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from packaging.utils import parse_wheel_filename

from dagster_slurm_components.environments.cache import cache_folder, digest_of, only_one
from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.host.files import hash_of
from dagster_slurm_components.environments.programs import find_uv, run_program
from dagster_slurm_components.environments.pylock import LockedFile
from dagster_slurm_components.environments.request import Progress
from dagster_slurm_components.errors import EnvironmentFailedError

_TOOLS = frozenset({".git", ".hg", ".venv", "venv", "build", "dist", "node_modules", ".pixi"})
_LEFT_OUT = _TOOLS | {".tox", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".dagster-slurm"}
_FIXED_TIME = "315532800"  # 1980, the first year that a zip file can name


def wheel_of(file: LockedFile, folder: Path, progress: Progress) -> Artifact:
    """Return the wheel of a locked file. What it is built from is its identity: two builds differ in their bytes.

    Args:
        file: What the lock says.
        folder: Where its relative paths start.
        progress: Hears of the bytes of a source archive.

    Raises:
        EnvironmentFailedError: A source archive can't be fetched, or no wheel can be built.
    """
    path = (folder / file.location).resolve()
    if file.sha256 is None:
        return _built(path, tree_digest(path))
    url = file.location if "://" in file.location else None
    wheel = Artifact(file.name, file.sha256, file.size, "wheel", url=url, path=None if url else str(path))
    if file.source == "wheel":
        return wheel
    (archive,) = fetch([dataclasses.replace(wheel, kind="archive")], progress)
    return _built(Path(archive.path or ""), archive.sha256)


def version_of(wheel: Artifact) -> str:
    """Return the version in a wheel's name."""
    return str(parse_wheel_filename(wheel.name)[1])


def tree_digest(folder: Path) -> str:
    """Return a hash of a project's files: names, contents and whether they are executable."""
    digest = hashlib.sha256()
    for name in _source_files(folder):
        path = folder / name
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"{name}\0{executable}\0".encode("utf-8", "surrogateescape"))
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _source_files(folder: Path) -> list[str]:
    """Return the files of a project, relative to it: what git knows or would take, otherwise all but caches."""
    git = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git"):
        listed = subprocess.run(git, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
        if listed.returncode == 0 and names:
            return sorted(name for name in names if (folder / name).is_file())
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in _LEFT_OUT and not n.endswith(".egg-info"))
        found += [os.path.relpath(os.path.join(where, name), folder) for name in files]
    return sorted(found)


def _built(source: Path, identity: str) -> Artifact:
    folder = cache_folder("built", digest_of("wheel", identity)[:40])
    with only_one(f"built-{identity[:40]}"):
        found = sorted(folder.glob("*.whl"))
        if not found:
            _build(source, folder)
            found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise EnvironmentFailedError(
            f"building {source} gave {len(found)} wheels instead of one",
            code="build_failed",
            where=str(source),
        )
    (wheel,) = found
    size = wheel.stat().st_size
    return Artifact(wheel.name, hash_of(wheel), size, "wheel", path=str(wheel), identity=identity)


def _build(source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target) as aside:
        out, place = Path(aside, "out"), source
        if source.is_file():
            # The name in the cache begins with a hash; what kind of archive it is, its end says.
            place = Path(aside, "source")
            shutil.unpack_archive(source, place, filter=None if source.name.endswith(".zip") else "data")
            inner = [path for path in place.iterdir() if path.is_dir()]
            place = inner[0] if len(inner) == 1 else place
        elif not _needs_history(source):
            # In a copy of exactly the hashed files: nothing else gets in, and setuptools leaves nothing behind.
            place = Path(aside, source.name)
            for name in _source_files(source):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, place / name)
        argv = [find_uv()[0], "build", "--quiet", "--wheel", "--no-create-gitignore", "--out-dir", str(out)]
        run_program(
            [*argv, str(place)],
            where=str(source),
            says="no wheel can be built",
            hint="`uv build --wheel` there must succeed on this machine.",
            code="build_failed",
            env={**os.environ, "SOURCE_DATE_EPOCH": _FIXED_TIME},
        )
        for wheel in out.glob("*.whl"):
            wheel.replace(target / wheel.name)


def _needs_history(folder: Path) -> bool:
    """Return whether the version comes from git's history, which a copy does not have."""
    file = folder / "pyproject.toml"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return any(name in text for name in ("setuptools_scm", "setuptools-scm", "hatch-vcs", "versioningit"))
