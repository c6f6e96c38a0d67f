"""Python packages as wheels, and uv, which installs them on the host.

Local projects and source archives are built here, once for each content, whatever the file times say.
"""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename

from dagster_slurm_components.environments.content import (
    Artifact,
    EnvironmentPlan,
    Interpreter,
    Platform,
    Progress,
)
from dagster_slurm_components.environments.fetch import fetch
from dagster_slurm_components.environments.host.tools import CHUNK, hash_of, new_file
from dagster_slurm_components.environments.machine import (
    cache_folder,
    digest_of,
    find_uv,
    only_one,
    run_program,
    use,
)
from dagster_slurm_components.environments.pylock import LockedPackage, locked_packages
from dagster_slurm_components.errors import EnvironmentFailedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TOOLS = frozenset({".git", ".hg", ".venv", "venv", "build", "dist", "node_modules", ".pixi"})
_LEFT_OUT = _TOOLS | {".tox", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".dagster-slurm"}
_FIXED_TIME = "315532800"  # 1980, the first year that a zip file can name


def with_wheels(
    plan: EnvironmentPlan, packages: Sequence[LockedPackage], progress: Progress
) -> EnvironmentPlan:
    """Return a plan in which uv, on the host, also installs these Python packages.

    Raises:
        EnvironmentFailedError: A source archive can't be fetched, or no wheel can be built.
    """
    uv, uv_version = find_uv()
    wheels = {package.name: _wheel(package.file, progress) for package in packages}
    pins = [(name, str(parse_wheel_filename(wheel.name)[1]), wheel.sha256) for name, wheel in wheels.items()]
    return dataclasses.replace(
        plan,
        packer=f"{plan.packer}, uv {uv_version}" if plan.packer else f"uv {uv_version}",
        packages={name: version for name, version, _ in pins},
        artifacts=(*wheels.values(), _uv_for(uv, uv_version, plan.platform)),
        requirements=requirements(pins),
    )


def requirements(pins: Sequence[tuple[str, str, str]]) -> str:
    """Return a requirements file that accepts exactly these files: package, version and sha256 of each."""
    return "".join(f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in sorted(pins))


def _wheel(file: Artifact, progress: Progress) -> Artifact:
    """Return the wheel of a package. What it is built from is its identity: two builds differ in their bytes."""
    if file.kind == "wheel":
        return file
    if file.kind == "archive":
        (file,) = fetch([file], progress)
    source = Path(file.path or "")
    if not source.exists():
        raise EnvironmentFailedError("the lock names a local package that is not there", where=str(source))
    return _built(source, file.sha256 or tree_digest(source))


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


def _built(source: Path, identity: str) -> Artifact:
    folder = cache_folder("built", digest_of("wheel", identity)[:40])
    with only_one(f"built-{identity[:40]}"):
        if not any(folder.glob("*.whl")):
            _build(source, folder)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        text = f"building {source} gave {len(wheels)} wheels instead of one"
        raise EnvironmentFailedError(text, code="build_failed", where=str(source))
    (wheel,) = wheels
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


def compiled(file: Path) -> str:
    """Return the ``pylock.toml`` of a requirements file, for any platform."""
    argv = "pip compile --quiet --no-deps --universal --no-header --format=pylock.toml"
    return run_program([find_uv()[0], *argv.split(), str(file)], where=str(file))


def _uv_for(uv: str, version: str, platform: Platform) -> Artifact:
    """Return uv itself for a platform: taken out of its wheel from the package index, or this machine's own."""
    path = cache_folder("tools") / f"uv-{version}-{platform.system}-{platform.machine}-{platform.libc}"
    if not path.exists():
        try:
            _extract_uv(version, platform, path)
        except EnvironmentFailedError:  # the index can't be reached
            if (sys.platform, os.uname().machine) != (platform.system, platform.machine):
                raise
            with new_file(path) as target:
                shutil.copyfile(uv, target)
    use(path)
    return Artifact("uv", hash_of(path), path.stat().st_size, "tool", path=str(path))


def _extract_uv(version: str, platform: Platform, path: Path) -> None:
    wanted = cache_folder("tools", f"lock-{version}") / "requirements.in"
    wanted.write_text(f"uv=={version}\n")
    lock = tomllib.loads(compiled(wanted))
    # Its wheels fit any Python; the tag only needs one to be named.
    (uv,) = locked_packages(lock, Interpreter("", "3.12.0"), platform, Path(f"uv {version}"))
    (wheel,) = fetch([uv.file])
    with zipfile.ZipFile(wheel.path or "") as archive, new_file(path) as target:
        target.write_bytes(archive.read(f"uv-{version}.data/scripts/uv"))
