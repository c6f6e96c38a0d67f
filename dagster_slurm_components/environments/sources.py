"""A wheel from a source: a local folder, an archive, or a commit. Built here by uv, once for each content."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

from dagster_slurm_components.environments.commit import checkout
from dagster_slurm_components.environments.content import Artifact, Interpreter, Platform, Progress
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.host.store import without_login
from dagster_slurm_components.environments.host.tools import CHUNK, hash_of
from dagster_slurm_components.environments.machine import (
    cache_folder,
    digest_of,
    find_uv,
    only_one,
    run_program,
)
from dagster_slurm_components.environments.pylock import LockedPackage, wheel_tags
from dagster_slurm_components.errors import EnvironmentFailedError

_TOOLS = frozenset({".git", ".hg", ".venv", "venv", "build", "dist", "node_modules", ".pixi"})
_LEFT_OUT = _TOOLS | {".tox", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".dagster-slurm"}
_FIXED_TIME = "315532800"  # 1980, the first year that a zip file can name
_GLIBC = re.compile(rb"\bGLIBC_(\d+)\.(\d+)")


def built(
    package: LockedPackage, interpreter: Interpreter | None, platform: Platform, progress: Progress
) -> Artifact:
    """Return the wheel of a source. What it is built from is its identity: two builds differ in their bytes.

    Raises:
        EnvironmentFailedError: The source can't be had or built, or its wheel does not fit the platform.
    """
    name, source = package
    if source.kind == "archive":
        (source,) = fetch([source], progress)
    elif source.kind == "folder" and not Path(source.path or "").exists():
        text = f"the lock names a local package that is not there, {name}"
        raise EnvironmentFailedError(text, where=source.path)
    build = _build_of(name, source)
    fitting = frozenset(wheel_tags(interpreter, platform)) if interpreter else frozenset()
    wheel = build.wheel()
    if interpreter and _is_for_another_python(wheel, fitting):
        wheel = build.wheel(f"{'.'.join(map(str, interpreter.minor))}{interpreter.abi_flags}")
    build.check(wheel, fitting, platform)
    size = wheel.stat().st_size
    return Artifact(wheel.name, hash_of(wheel), size, "wheel", path=str(wheel), identity=build.identity)


def _build_of(name: str, source: Artifact) -> "_Build":
    what, where, large_files = name, source.path or "", False
    content = source.identity or source.sha256 or tree_digest(Path(where))
    if source.kind == "commit":
        what = f"{name} (commit {content} of {without_login(source.url or '')})"
        where, large_files = _named(name, content, Path(source.lock or ""))
    parts = [content, source.subdirectory, "large files" if large_files else ""]
    return _Build(name, source, what, where, ", ".join(part for part in parts if part), large_files)


@dataclass(frozen=True)
class _Build:
    """The build of a package from a source that is here, or is a commit; ``what`` and ``where`` tell people of it."""

    name: str
    source: Artifact
    what: str
    where: str
    identity: str
    large_files: bool

    def wheel(self, python: str | None = None) -> Path:
        """Return the wheel, built first unless it is here; by a certain Python, else by the one that uv chooses."""
        own = ("wheel", self.identity, *([python] if python else []))
        folder = cache_folder("built", digest_of(*own)[:40])
        with only_one(f"built-{self.identity[:40]}"):
            if not any(folder.glob("*.whl")):
                with tempfile.TemporaryDirectory(dir=folder) as aside:
                    for wheel in self._run(self._unpacked(Path(aside)), Path(aside, "out"), python):
                        wheel.replace(folder / wheel.name)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise self._error(f"building {self.what} gave {len(wheels)} wheels instead of one")
        return wheels[0]

    def _run(self, place: Path, out: Path, python: str | None) -> list[Path]:
        argv = [find_uv()[0], "build", "--wheel", "--no-create-gitignore", "--out-dir", str(out)]
        asked = ([f"--python={python}"], f" by Python {python}, as the host has it") if python else ([], "")
        run_program(
            [*argv, *asked[0], str(place)],
            where=self.where,
            says=f"{self.what}: no wheel can be built{asked[1]}",
            hint=f"`uv build --wheel` of it must succeed on this machine. {_elsewhere(self.name)}",
            code="build_failed",
            # Where uv finds the indexes of the project that the lock belongs to.
            cwd=Path(self.source.lock).parent if self.source.lock else None,
            env={**os.environ, "SOURCE_DATE_EPOCH": _FIXED_TIME},
        )
        return list(out.glob("*.whl"))

    def _unpacked(self, aside: Path) -> Path:
        """Return the folder to build in."""
        source, path, place = self.source, Path(self.source.path or ""), aside / "source"
        if source.kind == "commit":
            checkout(source, place, large_files=self.large_files, what=self.what, where=self.where)
        elif source.kind == "archive":
            # The name in the cache begins with a hash; what kind of archive it is, its end says.
            shutil.unpack_archive(path, place, filter=None if path.name.endswith(".zip") else "data")
            inner = [each for each in place.iterdir() if each.is_dir()]
            place = inner[0] if len(inner) == 1 else place
        elif _needs_history(path):
            place = path
        else:
            # In a copy of exactly the hashed files: nothing else gets in, and setuptools leaves nothing behind.
            place = aside / path.name
            for name in _source_files(path):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path / name, place / name)
        if not (place / source.subdirectory).is_dir():
            raise self._error(f"{self.what} has no folder {source.subdirectory}")
        return place / source.subdirectory

    def check(self, wheel: Path, fitting: frozenset[Tag], platform: Platform) -> None:
        """Refuse a wheel of another package or for another platform."""
        made, _, _, tags = parse_wheel_filename(wheel.name)
        if made != self.name:
            raise self._error(f"building {self.what} gave a wheel of another package, {wheel.name}")
        needed = _glibc(wheel)
        if fitting and not tags & fitting:
            why = f"is {wheel.name}"
        elif needed > (platform.libc_version if platform.libc == "glibc" else (0, 0)):
            why = f"needs glibc {needed[0]}.{needed[1]}"
        else:
            return
        text = f"{self.what} is compiled: what was built on this machine {why}, and the host is {platform}"
        raise self._error(text, _elsewhere(self.name))

    def _error(self, text: str, hint: str | None = None) -> EnvironmentFailedError:
        return EnvironmentFailedError(text, code="build_failed", where=self.where, hint=hint)


def _elsewhere(name: str) -> str:
    return f'Or build its wheel on a machine like the host, and write {name} = {{path = "FILE.whl"}} for it.'


def _is_for_another_python(wheel: Path, fitting: frozenset[Tag]) -> bool:
    tags = parse_wheel_filename(wheel.name)[3]
    platforms = {tag.platform for tag in fitting}
    return not tags & fitting and any(tag.platform in platforms for tag in tags)


def _glibc(wheel: Path) -> tuple[int, int]:
    """Return the newest glibc that libraries in a wheel ask for. A tag like ``linux_x86_64`` names none."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".so" in name]
        found = [match.groups() for name in names for match in _GLIBC.finditer(archive.read(name))]
    return max(((int(major), int(minor)) for major, minor in found), default=(0, 0))


def _named(name: str, commit: str, lock: Path) -> tuple[str, bool]:
    """Return the line of a lock that takes a package from a commit, and whether files of Git LFS are wanted.

    uv's own export names neither.
    """
    lines = lock.read_text(encoding="utf-8").splitlines()
    found = [at for at, line in enumerate(lines) if commit in line]
    near = [at for at in found if name in _names("\n".join(lines[max(at - 3, 0) : at + 2]))]
    return f"{lock}:{(near or found)[0] + 1}", any("lfs=true" in lines[at] for at in found)


def _names(text: str) -> set[str]:
    return {canonicalize_name(word) for word in re.findall(r"[\w.-]+", text)}


def tree_digest(folder: Path) -> str:
    """Return a hash of a project's files: names, contents and whether they are executable."""
    digest = hashlib.sha256()
    for name in _source_files(folder):
        path = folder / name
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"{name}\0{executable}\0".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        digest.update(b"\0")
    return digest.hexdigest()


def _source_files(folder: Path) -> list[str]:
    """Return the files of a project, relative to it: what git knows or would take, otherwise all but caches."""
    git = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git"):
        listed = subprocess.run(git, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}
        if listed.returncode == 0 and names:
            return sorted(name for name in names if (folder / name).is_file())
    paths = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in _LEFT_OUT and not n.endswith(".egg-info"))
        paths += [os.path.relpath(path, folder) for name in files if (path := Path(where, name)).is_file()]
    return sorted(paths)


def _needs_history(folder: Path) -> bool:
    """Return whether the version comes from git's history, which a copy does not have."""
    file = folder / "pyproject.toml"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return any(name in text for name in ("setuptools_scm", "setuptools-scm", "hatch-vcs", "versioningit"))
