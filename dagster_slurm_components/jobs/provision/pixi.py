"""Environments of type ``pixi``: one environment of a ``pixi.lock``, conda and PyPI packages, for any platform."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from dagster_slurm_components.environments.content import Artifact, EnvironmentPlan, Platform
from dagster_slurm_components.environments.pylock import requirements
from dagster_slurm_components.jobs.provision.archives import packed
from dagster_slurm_components.jobs.provision.cache import cache_folder, digest_of
from dagster_slurm_components.jobs.provision.conda import (
    check_platform,
    conda_packages,
    interpreter_of,
    subdir_of,
)
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError
from dagster_slurm_components.jobs.provision.fetch import fetch
from dagster_slurm_components.jobs.provision.local_package import (
    tree_digest,
    version_of,
    wheel_of_archive,
    wheel_of_folder,
)
from dagster_slurm_components.jobs.provision.pixi_program import fetch_packages
from dagster_slurm_components.jobs.provision.progress import Progress, silent
from dagster_slurm_components.jobs.provision.request import HostPlatform, Request
from dagster_slurm_components.jobs.provision.uv import find_uv, install_wheels, uv_program
from dagster_slurm_components.spec.environments import PixiEnvironment

if TYPE_CHECKING:
    from rattler import RepoDataRecord


@dataclass(frozen=True)
class Locked:
    """What a ``pixi.lock`` says of one environment on one platform.

    Attributes:
        records: Its conda packages, as rattler knows them.
        conda: The same as artifacts.
        pypi: Name, version, location and sha256 of its PyPI packages; a local project has no hash.
    """

    records: Sequence[RepoDataRecord]
    conda: tuple[Artifact, ...]
    pypi: tuple[tuple[str, str | None, str, str | None], ...]


def _rattler() -> Any:
    try:
        import rattler  # noqa: PLC0415 - an optional extra of 25 MB
    except ImportError as error:
        raise EnvironmentFailedError(
            "environments of type `pixi` need the package py-rattler, which is not installed",
            hint="pip install 'dagster-slurm-components[pixi]'",
        ) from error
    return rattler


def read_lock(file: Path, environment: str, platform: Platform, name: str | None = None) -> Locked:
    """Read a ``pixi.lock`` (format 1 to 7).

    Raises:
        EnvironmentFailedError: It can't be read, has no such environment, lacks the platform or a hash.
    """
    rattler = _rattler()
    from rattler.exceptions import ParseCondaLockError  # noqa: PLC0415 - as rattler itself

    try:
        lock = rattler.LockFile.from_path(file)
    except (OSError, ParseCondaLockError) as error:
        hint = f"Run `pixi lock` in {file.parent}."
        raise EnvironmentFailedError(f"can't be read: {error}", where=str(file), hint=hint) from error
    names = [name for name, _ in lock.environments()]
    if environment not in names:
        raise EnvironmentFailedError(
            f"it has no environment `{environment}`, only {', '.join(sorted(names))}", where=str(file)
        )
    found = lock.environment(environment)
    subdir = subdir_of(platform)
    locked_for = _platform(found.platforms(), subdir, name, f"environment `{environment}`", file)
    packages = found.packages(locked_for) or []
    sources = [package.name for package in packages if isinstance(package, rattler.CondaLockedSourcePackage)]
    if sources:
        raise EnvironmentFailedError(
            f"conda packages from source can't be packed: {', '.join(map(str, sources))}", where=str(file)
        )
    records = found.conda_repodata_records_for_platform(locked_for) or []
    pypi = [_pypi(package, file) for package in found.pypi_packages_for_platform(locked_for) or []]
    return Locked(records, tuple(_artifact(record, file) for record in records), tuple(sorted(pypi)))


def _platform(platforms: Sequence[Any], subdir: str, name: str | None, what: str, file: Path) -> Any:
    """Return the platform of a lock that is the host's; since format 7 there may be several, by name.

    Raises:
        EnvironmentFailedError: There is none, or several and none of them is asked for.
    """
    fitting = {str(each.name): each for each in platforms if str(each.subdir) == subdir}
    if name is not None and name not in fitting:
        raise EnvironmentFailedError(
            f"{what} has no platform `{name}` for {subdir}, only {', '.join(sorted(fitting)) or 'none'}",
            where=str(file),
        )
    if not fitting:
        there = ", ".join(sorted(str(each.subdir) for each in platforms))
        raise EnvironmentFailedError(
            f"{what} is locked for {there}, and the host is {subdir}",
            where=str(file),
            hint=f'Add "{subdir}" to `platforms` in the manifest and run `pixi lock`.',
        )
    chosen = name or (subdir if subdir in fitting else min(fitting))
    if name is None and len(fitting) > 1 and chosen != subdir:
        raise EnvironmentFailedError(
            f"{what} is locked for several platforms of the host's kind: {', '.join(sorted(fitting))}",
            where=str(file),
            hint=f"Write `platform: {chosen}`, or another one of them, into the environment.",
        )
    return fitting[chosen]


def _artifact(record: RepoDataRecord, file: Path) -> Artifact:
    if record.sha256 is None:
        raise EnvironmentFailedError(f"{record.file_name} has no sha256 in the lock", where=str(file))
    name = record.url.rpartition("/")[2]
    return Artifact(name, record.sha256.hex(), record.size, "conda", url=record.url)


def _pypi(package: Any, file: Path) -> tuple[str, str | None, str, str | None]:
    name, location = canonicalize_name(package.name), str(package.location)
    try:
        digest = package.hashes.sha256 if package.hashes else None
    except AttributeError:  # py-rattler 0.28 wraps a missing hash, and fails on its first use
        digest = None
    if digest is None and "://" in location:
        raise EnvironmentFailedError(f"{name} has no sha256 in the lock", where=str(file))
    return name, package.version, location, digest.hex() if digest else None


class PixiPacker:
    """Plans environments of type ``pixi``."""

    def inputs(self, request: Request) -> list[object] | None:
        """Return what the plan follows from: the lock, and local packages that it names."""
        spec, file = _spec(request), _lock_file(request)
        text = file.read_text(encoding="utf-8")
        version = importlib.metadata.version("py-rattler")
        local = [
            line.split(":", 1)[1].strip()
            for line in text.splitlines()
            if line.strip().startswith("- pypi: .")
        ]
        trees = [[path, tree_digest(file.parent / path)] for path in sorted(set(local))]
        return [spec.model_dump(mode="json"), str(file), text, version, *trees]

    def plan(self, request: Request, host: HostPlatform, progress: Progress = silent) -> EnvironmentPlan:
        """Return the plan; see ``Packer``. Installs the conda packages here, for their place on the host."""
        rattler = _rattler()
        spec, file = _spec(request), _lock_file(request)
        locked = read_lock(file, spec.environment, host.platform, spec.platform)
        records = [_described(record) for record in locked.records]
        check_platform((record["subdir"] for record in records), host.platform, str(file))
        wheels = locked_wheels(locked, file.parent, progress)
        plan = EnvironmentPlan(
            kind="pixi",
            name=file.parent.name
            if spec.environment == "default"
            else f"{file.parent.name}-{spec.environment}",
            packer=f"py-rattler {rattler.__version__}",
            platform=host.platform,
            packages={name: version for name, version, _ in wheels},
            artifacts=tuple(wheel for _, _, wheel in wheels),
            interpreter=interpreter_of(records),
            inputs={
                **request.groundwork,
                "conda": conda_packages(records),
                "content": digest_of(sorted([item.name, item.sha256] for item in locked.conda)),
            },
        )
        if wheels:
            plan = _with_uv(plan, host.platform)

        def make(place: Path, destination: str) -> None:
            subdir = subdir_of(host.platform)
            files = fetch_packages(file.parent, spec.environment, subdir, locked.conda, progress)
            install(locked.records, files, place, destination, subdir)

        return packed(plan, host.workdir, make)


def _spec(request: Request) -> PixiEnvironment:
    assert isinstance(request.spec, PixiEnvironment)  # noqa: S101 - the registry of packers goes by type
    return request.spec


def _lock_file(request: Request) -> Path:
    file = request.path("project") / "pixi.lock"
    if not file.is_file():
        raise EnvironmentFailedError(
            "there is no such file", where=str(file), hint=f"Run `pixi lock` in {file.parent}."
        )
    return file


def _described(record: RepoDataRecord) -> Mapping[str, Any]:
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": record.build,
        "subdir": record.subdir,
    }


def locked_wheels(locked: Locked, folder: Path, progress: Progress) -> list[tuple[str, str, Artifact]]:
    """Return name, version and wheel of each PyPI package; local projects and source archives are built here."""
    found = []
    for name, version, location, digest in locked.pypi:
        if digest is None:
            wheel = wheel_of_folder(find_uv()[0], (folder / location).resolve())
        else:
            file = location.partition("#")[0].rpartition("/")[2].replace("%2B", "+")
            url, path = (location, None) if "://" in location else (None, str((folder / location).resolve()))
            wheel = Artifact(file, digest, None, "wheel", url=url, path=path)
            if not file.endswith(".whl"):
                archive = dataclasses.replace(wheel, kind="archive")
                wheel = wheel_of_archive(find_uv()[0], fetch([archive], progress)[0])
        found.append((name, version or version_of(wheel), wheel))
    return found


def _with_uv(plan: EnvironmentPlan, platform: Platform) -> EnvironmentPlan:
    """Let uv install the plan's wheels into the unpacked prefix, on the host."""
    uv, version = find_uv()
    pins = [
        (name, known, wheel.sha256)
        for (name, known), wheel in zip(plan.packages.items(), plan.artifacts, strict=True)
    ]
    return dataclasses.replace(
        plan,
        packer=f"{plan.packer}, uv {version}",
        artifacts=(*plan.artifacts, uv_program(uv, version, platform)),
        commands=(install_wheels("install"),),
        files={"requirements.txt": requirements(pins)},
    )


def install(
    records: Sequence[RepoDataRecord], files: Sequence[Artifact], place: Path, destination: str, subdir: str
) -> None:
    """Install fetched conda packages into a folder here, with the paths of their destination.

    The packages' own scripts (post-link) are not run: they are foreign code, and the platform may be another one.
    """
    rattler = _rattler()
    for record, file in zip(records, files, strict=True):
        # Fetched and hashed here: rattler 0.28 checks hashes over HTTP, but not those of local files.
        record.url = _as_named(file).as_uri()
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


def _as_named(file: Artifact) -> Path:
    """Return the fetched file under its own name, which rattler reads name, version and build from."""
    named = cache_folder("conda", file.sha256) / file.name
    if not named.exists():
        try:
            named.hardlink_to(file.path or "")
        except FileExistsError:
            return named
    return named
