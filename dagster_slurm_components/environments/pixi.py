"""Environments of type ``pixi``: one environment of a ``pixi.lock``, conda and PyPI packages, for any platform."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit, urlunsplit
from urllib.request import url2pathname

from packaging.utils import canonicalize_name

from dagster_slurm_components.environments.conda import conda_plan, packed, subdir_of
from dagster_slurm_components.environments.content import (
    Artifact,
    EnvironmentPlan,
    HostPlatform,
    Platform,
    Progress,
    Request,
    silent,
)
from dagster_slurm_components.environments.fetch import cached_file, fetch
from dagster_slurm_components.environments.host.tools import hash_of, new_file
from dagster_slurm_components.environments.machine import cache_folder, digest_of, run_program
from dagster_slurm_components.environments.pylock import COMMIT, LockedPackage, locked_commit, locked_file
from dagster_slurm_components.environments.sources import tree_digest
from dagster_slurm_components.environments.wheels import with_wheels
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.spec.environments import PixiEnvironment

if TYPE_CHECKING:
    from rattler import RepoDataRecord

_LOCATION = re.compile(r"""^\s*- pypi: ["']?(.+?)["']?\s*$""", re.MULTILINE)
_HINT = (
    "`pixi-pack --version` must be 0.7 or newer. Without pixi-pack on PATH the packages are fetched from where the"
    " lock says, with the logins of ~/.netrc."
)


class Locked(NamedTuple):
    """What a ``pixi.lock`` says of one environment on one platform: its conda packages, twice, and those of PyPI."""

    records: Sequence[RepoDataRecord]
    conda: Sequence[Artifact]
    pypi: Sequence[LockedPackage]


def inputs(request: Request[PixiEnvironment]) -> list[object]:
    """Return what the plan follows from: the lock, and local packages that it names."""
    file = _lock_file(request)
    text = file.read_text(encoding="utf-8")
    version = importlib.metadata.version("py-rattler")
    local = {each: _local(each, file) for each in sorted(set(_LOCATION.findall(text)))}
    there = [(each, path) for each, path in local.items() if path is not None and path.exists()]
    trees = [[each, tree_digest(path) if path.is_dir() else path.stat().st_mtime_ns] for each, path in there]
    return [request.spec.model_dump(mode="json"), str(file), text, version, *trees]


def plan(request: Request[PixiEnvironment], host: HostPlatform, progress: Progress) -> EnvironmentPlan:
    """Return the plan. Installs the conda packages here, for their place on the host."""
    spec, file = request.spec, _lock_file(request)
    folder, subdir = file.parent, subdir_of(host.platform)
    locked = read_lock(file, spec.environment, host.platform, spec.platform)
    records = [
        {"name": r.name.normalized, "version": str(r.version), "build": r.build, "subdir": r.subdir}
        for r in locked.records
    ]
    name = folder.name if spec.environment == "default" else f"{folder.name}-{spec.environment}"
    content = digest_of(sorted([item.name, item.sha256] for item in locked.conda))
    packer = f"py-rattler {_rattler().__version__}"
    bare = conda_plan(request, host, records, where=file, content=content, name=name, packer=packer)
    if locked.pypi:
        bare = with_wheels(bare, locked.pypi, progress)

    def make(place: Path, destination: str) -> None:
        files = fetch_packages(folder, spec.environment, subdir, locked.conda, progress)
        _install(locked.records, files, place, destination, subdir)

    return packed(bare, host.workdir, make)


def _lock_file(request: Request[PixiEnvironment]) -> Path:
    file = request.path("project") / "pixi.lock"
    if not file.is_file():
        hint = f"Run `pixi lock` in {file.parent}."
        raise EnvironmentFailedError("there is no such file", where=str(file), hint=hint)
    return file


def _rattler() -> Any:
    try:
        import rattler.exceptions  # noqa: PLC0415 - an optional extra of 25 MB
    except ImportError as error:
        raise EnvironmentFailedError(
            "environments of type `pixi` need the package py-rattler, which is not installed",
            hint="pip install 'dagster-slurm-components[pixi]'",
        ) from error
    return rattler


def read_lock(file: Path, environment: str, platform: Platform, name: str | None = None) -> Locked:
    """Read an environment of a ``pixi.lock`` (format 1 to 7); ``name`` chooses among platforms of the host's kind.

    Raises:
        EnvironmentFailedError: It can't be read, has no such environment, lacks the platform or a hash.
    """
    rattler = _rattler()
    try:
        lock = rattler.LockFile.from_path(file)
    except (OSError, rattler.exceptions.ParseCondaLockError) as error:
        hint = f"Run `pixi lock` in {file.parent}."
        raise EnvironmentFailedError(f"can't be read: {error}", where=str(file), hint=hint) from error
    content = lock.environment(environment)
    if content is None:
        names = ", ".join(sorted(each for each, _ in lock.environments()))
        raise EnvironmentFailedError(f"it has no environment `{environment}`, only {names}", where=str(file))
    what = f"environment `{environment}`"
    locked_for = _platform(content.platforms(), subdir_of(platform), name, what, file)
    packages = content.packages(locked_for) or []
    sources = [str(each.name) for each in packages if isinstance(each, rattler.CondaLockedSourcePackage)]
    if sources:
        text = f"conda packages from source can't be packed: {', '.join(sources)}"
        raise EnvironmentFailedError(text, where=str(file))
    records = content.conda_repodata_records_for_platform(locked_for) or []
    pypi = [_pypi(package, file) for package in content.pypi_packages_for_platform(locked_for) or []]
    pypi.sort(key=lambda package: package.name)
    return Locked(records, [_artifact(record, file) for record in records], pypi)


def _platform(platforms: Sequence[Any], subdir: str, name: str | None, what: str, file: Path) -> Any:
    """Return the platform of a lock that is the host's; since format 7 there may be several, by name."""
    fitting = {str(each.name): each for each in platforms if str(each.subdir) == subdir}
    chosen = name or (subdir if subdir in fitting else min(fitting, default=""))
    if name is not None and name not in fitting:
        listed, hint = ", ".join(sorted(fitting)) or "none", None
        message = f"{what} has no platform `{name}` for {subdir}, only {listed}"
    elif not fitting:
        listed = ", ".join(sorted(str(each.subdir) for each in platforms))
        message = f"{what} is locked for {listed}, and the host is {subdir}"
        hint = f'Add "{subdir}" to `platforms` in the manifest and run `pixi lock`.'
    elif name is None and len(fitting) > 1 and chosen != subdir:
        message = f"{what} is locked for several platforms of the host's kind: {', '.join(sorted(fitting))}"
        hint = f"Write `platform: {chosen}`, or another one of them, into the environment."
    else:
        return fitting[chosen]
    raise EnvironmentFailedError(message, where=str(file), hint=hint)


def _artifact(record: RepoDataRecord, file: Path) -> Artifact:
    if record.sha256 is None:
        raise EnvironmentFailedError(f"{record.file_name} has no sha256 in the lock", where=str(file))
    name = record.url.rpartition("/")[2]
    return Artifact(name, record.sha256.hex(), record.size, "conda", url=record.url)


def _local(location: str, file: Path) -> Path | None:
    """Return the path that a location in a lock means: one without a scheme, or ``file://`` (formats 4 and 5)."""
    own = url2pathname(location.removeprefix("file://")) if location.startswith("file://") else location
    return None if "://" in own else file.parent / own


def _pypi(package: Any, file: Path) -> LockedPackage:
    name, digest = canonicalize_name(package.name), None
    location = str(package.location).removeprefix("direct+")  # what a URL in a requirement was in format 4
    if location.startswith("git+"):
        return LockedPackage(name, _commit(name, location.removeprefix("git+"), file))
    # py-rattler 0.28 wraps a missing hash, and fails on its first use.
    with contextlib.suppress(AttributeError):
        digest = package.hashes.sha256.hex()
    local = _local(location, file)
    if local is not None:  # a folder's hash is of its pyproject.toml alone
        digest = (digest or hash_of(local)) if local.is_file() else None
    elif digest is None:
        raise EnvironmentFailedError(f"{name} has no sha256 in the lock", where=str(file))
    return LockedPackage(name, locked_file(file, str(local or location), digest))


def _commit(name: str, location: str, file: Path) -> Artifact:
    """Read ``URL@COMMIT#subdirectory=...``, or what pixi writes since: ``URL?subdirectory=...&rev=...#COMMIT``."""
    parts = urlsplit(location)
    path, _, commit = parts.path.rpartition("@")
    if COMMIT.fullmatch(parts.fragment):
        path, commit = parts.path, parts.fragment
    inside = parse_qs(f"{parts.query}&{parts.fragment}").get("subdirectory", [""])[0]
    url = urlunsplit(parts._replace(path=path, query="", fragment=""))
    return locked_commit(file, name, url, commit, inside)


def pack_arguments(program: str, manifest: Path, environment: str, subdir: str, target: Path) -> list[str]:
    """Return the command that packs an environment's packages for a platform into a tar."""
    options = ["--environment", environment, "--platform", subdir, "--output-file", str(target)]
    options += ["--use-cache", str(cache_folder("pixi-pack"))]
    # PyPI packages are our own affair: source archives are built here.
    return [program, *options, "--ignore-pypi-non-wheel", str(manifest)]


def fetch_packages(
    folder: Path, environment: str, subdir: str, wanted: Sequence[Artifact], progress: Progress = silent
) -> list[Artifact]:
    """Return the conda packages of an environment with their files here.

    The program pixi-pack, where it is installed, has pixi's own mirrors and logins. What it brings is taken only if
    its hash is the lock's: pixi-pack itself checks packages when it downloads them, not those of its cache. The rest is
    fetched without it. Read from pixi-pack 0.7.10.

    Raises:
        EnvironmentFailedError: One can't be fetched, or has another content than the lock names.
    """
    program = shutil.which("pixi-pack")
    lacking = {item.name: item for item in wanted if not cached_file(item).exists()}
    if program and not all((item.url or "").startswith("file:") for item in lacking.values()):
        with tempfile.TemporaryDirectory(dir=cache_folder("packed")) as aside:
            archive = Path(aside) / "environment.tar"
            argv = pack_arguments(program, folder, environment, subdir, archive)
            run_program(argv, cwd=folder, where=str(folder), hint=_HINT)
            with tarfile.open(archive) as packed:
                for member in packed:
                    item = lacking.get(Path(member.name).name)
                    source = packed.extractfile(member) if member.name.startswith("channel/") else None
                    if item is not None and source is not None:  # `fetch` checks its hash
                        with new_file(cached_file(item)) as target, target.open("wb") as file:
                            shutil.copyfileobj(source, file)
    return fetch(wanted, progress)


def _install(
    records: Sequence[RepoDataRecord], files: Sequence[Artifact], place: Path, destination: str, subdir: str
) -> None:
    """Install fetched conda packages into a folder here, with the paths of their destination.

    The packages' own scripts (post-link) are not run: they are foreign code, and the platform may be another one.
    """
    rattler = _rattler()
    for record, file in zip(records, files, strict=True):
        # Fetched and hashed here: rattler 0.28 checks hashes over HTTP, but not those of local files.
        # It reads name, version and build from the file's name, which in the cache begins with the hash.
        named = cache_folder("conda", file.sha256) / file.name
        with contextlib.suppress(FileExistsError):
            named.hardlink_to(file.path or "")
        record.url = named.as_uri()
    asyncio.run(
        rattler.install(
            list(records),
            target_prefix=place,
            cache_dir=cache_folder("rattler"),
            platform=rattler.Subdir(subdir),
            execute_link_scripts=False,
            show_progress=False,
            alternative_target_prefix=destination,
        )
    )
