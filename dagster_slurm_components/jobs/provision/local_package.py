"""Local projects and source archives as wheels: built here once for each content, whatever the file times say."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename

from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.jobs.provision.cache import cache_folder, digest_of, file_digest, only_one
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError

_LEFT_OUT = frozenset(
    {
        ".git",
        ".hg",
        ".venv",
        "venv",
        "__pycache__",
        "build",
        "dist",
        "node_modules",
        ".tox",
        ".pixi",
        ".dagster-slurm",
    }
    | {".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
_FIXED_TIME = "315532800"  # 1980, the first year that a zip file can name


def source_files(folder: Path) -> list[str]:
    """Return the files of a project, relative to it: what git knows or would take, otherwise all but caches."""
    listed = (
        subprocess.run(
            ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if shutil.which("git")
        else None
    )
    if listed is not None and listed.returncode == 0 and listed.stdout:
        names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
        return sorted(name for name in names if (folder / name).is_file())
    found = []
    for where, folders, names_here in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in _LEFT_OUT and not n.endswith(".egg-info"))
        found += [os.path.relpath(os.path.join(where, name), folder) for name in names_here]
    return sorted(found)


def tree_digest(folder: Path) -> str:
    """Return a hash of a project's files: names, contents and whether they are executable."""
    digest = hashlib.sha256()
    for name in source_files(folder):
        path = folder / name
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"{name}\0{executable}\0".encode("utf-8", "surrogateescape"))
        digest.update(path.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()


def wheel_of_folder(uv: str, folder: Path) -> Artifact:
    """Return the wheel of a local project; its identity is the project's content.

    Raises:
        EnvironmentFailedError: It can't be built.
    """
    return _wheel(uv, folder, tree_digest(folder))


def wheel_of_archive(uv: str, archive: Artifact) -> Artifact:
    """Return the wheel of a fetched source archive; its identity is the archive's hash."""
    return _wheel(uv, Path(archive.path or ""), archive.sha256)


def version_of(wheel: Artifact) -> str:
    """Return the version in a wheel's name."""
    return str(parse_wheel_filename(wheel.name)[1])


def _wheel(uv: str, source: Path, identity: str) -> Artifact:
    folder = cache_folder("built", digest_of("wheel", identity)[:40])
    with only_one(f"built-{identity[:40]}"):
        found = sorted(folder.glob("*.whl"))
        if not found:
            _build(uv, source, folder)
            found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise EnvironmentFailedError(
            f"building {source} gave {len(found)} wheels instead of one",
            code="build_failed",
            where=str(source),
        )
    wheel = found[0]
    return Artifact(
        wheel.name, file_digest(wheel), wheel.stat().st_size, "wheel", path=str(wheel), identity=identity
    )


def _build(uv: str, source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target) as aside:
        out = Path(aside) / "out"
        place = source
        if source.is_dir() and not _needs_history(source):
            # In a copy of exactly the hashed files: nothing else gets in, and setuptools leaves nothing behind.
            place = Path(aside) / source.name
            for name in source_files(source):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, place / name)
        elif source.is_file():
            place = _unpacked(source, Path(aside))
        argv = [uv, "build", "--quiet", "--wheel", "--no-create-gitignore", "--out-dir", str(out), str(place)]
        env = {**os.environ, "SOURCE_DATE_EPOCH": _FIXED_TIME}
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise EnvironmentFailedError(
                f"no wheel can be built: {done.stderr.decode('utf-8', 'replace').strip()[-2000:]}",
                code="build_failed",
                where=str(source),
                hint="`uv build --wheel` there must succeed on this machine.",
            )
        for wheel in out.glob("*.whl"):
            wheel.replace(target / wheel.name)


def _needs_history(folder: Path) -> bool:
    """Return whether the version comes from git's history, which a copy does not have."""
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return any(name in text for name in ("setuptools_scm", "setuptools-scm", "hatch-vcs", "versioningit"))


def _unpacked(archive: Path, folder: Path) -> Path:
    place = folder / "source"
    # The name in the cache begins with a hash; what kind of archive it is, its end says.
    shutil.unpack_archive(archive, place, filter="data" if not archive.name.endswith(".zip") else None)
    inner: Sequence[Path] = [path for path in place.iterdir() if path.is_dir()]
    return inner[0] if len(inner) == 1 else place
