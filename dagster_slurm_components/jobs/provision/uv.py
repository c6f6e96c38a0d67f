"""Environments of type ``uv``: a project with its ``uv.lock``, or a requirements file with hashes."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from dagster_slurm_components.environments.content import (
    Artifact,
    At,
    Command,
    EnvironmentPlan,
    Interpreter,
    Platform,
    Word,
)
from dagster_slurm_components.environments.pylock import LockedFile, locked_files, requirements
from dagster_slurm_components.jobs.provision.cache import (
    cache_folder,
    digest_of,
    file_digest,
    new_file,
    recall,
    remember,
)
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError
from dagster_slurm_components.jobs.provision.fetch import fetch
from dagster_slurm_components.jobs.provision.local_package import (
    tree_digest,
    version_of,
    wheel_of_archive,
    wheel_of_folder,
)
from dagster_slurm_components.jobs.provision.progress import Progress, silent
from dagster_slurm_components.jobs.provision.request import HostPlatform, Request
from dagster_slurm_components.spec.environments import UvEnvironment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SQUASHED = "environment.squashfs"
"""File name of an environment that is an image."""

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@functools.cache
def find_uv() -> tuple[str, str]:
    """Return the path and version of uv on this machine: the installed package's, else the one on PATH.

    Raises:
        EnvironmentFailedError: There is none.
    """
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - an optional extra

        program = os.fsdecode(find_uv_bin())
    except (ImportError, FileNotFoundError):
        program = shutil.which("uv") or ""
    if not program:
        raise EnvironmentFailedError(
            "environments of type `uv` need the program uv, which is not on this machine",
            hint="pip install 'dagster-slurm-components[uv]'",
        )
    said = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return program, said.stdout.decode().split()[1]


class UvPacker:
    """Plans environments of type ``uv``."""

    def inputs(self, request: Request) -> list[object] | None:
        """Return what the plan follows from: options, lock, project and the local packages that the lock names."""
        spec = _spec(request)
        found: list[object] = [spec.model_dump(mode="json"), find_uv()[1]]
        if spec.requirements is not None:
            return [*found, _text(request.path("requirements"))]
        project = request.path("project")
        lock = _text(project / "uv.lock")
        if "{ path = " in lock:
            return None  # of files in a local folder uv.lock keeps no hash
        found += [
            str(project),
            lock,
            _text(project / "pyproject.toml"),
            _optional(project / ".python-version"),
        ]
        paths = sorted(
            set(re.findall(r'^source = \{ (?:editable|directory|virtual) = "([^"]*)"', lock, re.M))
        )
        return [*found, *([path, tree_digest(project / path)] for path in paths if (project / path).is_dir())]

    def plan(self, request: Request, host: HostPlatform, progress: Progress = silent) -> EnvironmentPlan:
        """Return the plan; see ``Packer``. Builds local packages, fetches only what a build needs."""
        spec = _spec(request)
        uv, version = find_uv()
        lock, allowed, where, name = _lock(uv, spec, request)
        interpreter = _interpreter(spec, request, lock.get("requires-python", ""), host)
        files = locked_files(lock, interpreter, host.platform, file=str(where), allowed=allowed)
        wheels = [_artifact(uv, file, where.parent, progress) for file in files]
        packages = {
            file.package: file.version or version_of(wheel) for file, wheel in zip(files, wheels, strict=True)
        }
        pins = [
            (file.package, packages[file.package], w.sha256) for file, w in zip(files, wheels, strict=True)
        ]
        return EnvironmentPlan(
            kind="uv",
            name=name,
            packer=f"uv {version}",
            platform=host.platform,
            packages=packages,
            artifacts=(*wheels, uv_program(uv, version, host.platform)),
            interpreter=interpreter,
            inputs=request.groundwork,
            commands=_commands(interpreter, empty=not pins),
            files={"requirements.txt": requirements(pins)},
            entry=SQUASHED if spec.form == "squashfs" else "prefix",
            form=spec.form,
        )


def _spec(request: Request) -> UvEnvironment:
    assert isinstance(request.spec, UvEnvironment)  # noqa: S101 - the registry of packers goes by type
    return request.spec


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        hint = f"Run `uv lock` in {path.parent}." if path.name == "uv.lock" else None
        raise EnvironmentFailedError(
            f"can't be read: {error.strerror}", where=str(path), hint=hint
        ) from error


def _optional(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _lock(
    uv: str, spec: UvEnvironment, request: Request
) -> tuple[Mapping[str, Any], Mapping[str, frozenset[str]] | None, Path, str]:
    """Return the lock as a pylock, the hashes that alone may be used, the file it came from, and a name."""
    if spec.requirements is not None:
        where = request.path("requirements")
        allowed = _pinned(_text(where), where)
        compiled = recall("pylock", digest_of("requirements", _text(where), find_uv()[1]))
        if compiled is None:
            argv = [
                "pip",
                "compile",
                "--quiet",
                "--no-deps",
                "--universal",
                "--no-header",
                "--format=pylock.toml",
            ]
            text = _run(uv, [*argv, str(where)], where)
            remember("pylock", digest_of("requirements", _text(where), find_uv()[1]), text)
        else:
            text = compiled[0]
        return tomllib.loads(text), allowed, where, where.parent.name
    project = request.path("project")
    where = project / "uv.lock"
    _text(where)
    # --locked: a pyproject.toml that has changed since is the user's mistake, and not silently left out.
    argv = [
        "export",
        "--quiet",
        "--directory",
        str(project),
        "--locked",
        "--no-header",
        "--format=pylock.toml",
    ]
    argv += [f"--group={group}" for group in spec.groups] + [f"--extra={extra}" for extra in spec.extras]
    argv += [] if spec.default_groups else ["--no-default-groups"]
    argv += [] if spec.install_project else ["--no-emit-project"]
    name = tomllib.loads(_text(project / "pyproject.toml")).get("project", {}).get("name", project.name)
    return tomllib.loads(_run(uv, argv, where)), None, where, name


def _run(uv: str, argv: Sequence[str], where: Path) -> str:
    done = subprocess.run([uv, *argv], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        outdated = "needs to be updated" in said
        raise EnvironmentFailedError(
            f"uv says: {said[-2000:]}",
            where=str(where),
            hint=f"Run `uv lock` in {where.parent}, and commit the new lock." if outdated else None,
        )
    return done.stdout.decode("utf-8")


def _pinned(text: str, where: Path) -> Mapping[str, frozenset[str]]:
    """Return the hashes of each requirement; every one must be pinned and have some."""
    allowed: dict[str, frozenset[str]] = {}
    joined = re.sub(r"\\\n", " ", text)
    for number, line in enumerate(joined.splitlines(), 1):
        plain = re.sub(r"(^|\s)#.*", "", line).strip()
        if not plain or (plain.startswith("--") and "--hash" not in plain):
            continue
        hashes = frozenset(_HASH.findall(plain))
        try:
            requirement = Requirement(plain.partition(" --")[0].strip())
        except InvalidRequirement as error:
            raise EnvironmentFailedError(
                f"can't read {plain!r}: {error}", where=f"{where}:{number}"
            ) from error
        if not hashes or not re.fullmatch(r"==[^*,]+", str(requirement.specifier)):
            raise EnvironmentFailedError(
                f"{requirement} is not pinned to one version with its sha256",
                where=f"{where}:{number}",
                hint="Make the file by `uv pip compile --generate-hashes` or `uv export`.",
            )
        name = canonicalize_name(requirement.name)
        allowed[name] = allowed.get(name, frozenset()) | hashes
    return allowed


def _interpreter(spec: UvEnvironment, request: Request, requires: str, host: HostPlatform) -> Interpreter:
    """Return the host's Python that fits what was asked, what the project names, and what the lock requires."""
    wish = spec.python or (_project_python(request) if spec.requirements is None else None)
    try:
        required = SpecifierSet(requires)
    except InvalidSpecifier:
        required = SpecifierSet()
    fitting = [
        python
        for python in host.interpreters
        if python.implementation == "cpython"
        and required.contains(python.version, prereleases=True)
        and _is_wished(python, wish)
    ]
    if fitting:
        return fitting[0]
    there = ", ".join(f"{python.version} ({python.path})" for python in host.interpreters) or "none"
    wanted = f"Python {wish}" if wish else f"a Python {requires}"
    raise EnvironmentFailedError(
        f"the host has no interpreter for this environment: wanted is {wanted}, there is {there}",
        hint="Set the environment's `python` to the path of one on the host, or load one by `modules: [python/...]`.",
    )


def _project_python(request: Request) -> str | None:
    text = _optional(request.path("project") / ".python-version")
    lines = [line.strip() for line in (text or "").splitlines() if line.strip() and not line.startswith("#")]
    return lines[0].removeprefix("cpython-").removeprefix("python") if lines else None


def _is_wished(python: Interpreter, wish: str | None) -> bool:
    if wish is None or not wish[0].isdigit():
        return True  # a path or a program's name: the probe looked for exactly that
    wanted, has = wish.rstrip("t").split("."), python.version.split(".")
    return has[: len(wanted)] == wanted and bool(python.abi_flags) == wish.endswith("t")


def _artifact(uv: str, file: LockedFile, folder: Path, progress: Progress) -> Artifact:
    if file.source == "folder":
        return wheel_of_folder(uv, (folder / file.location).resolve())
    url = file.location if "://" in file.location else None
    path = None if url else str((folder / file.location).resolve())
    found = Artifact(file.name, file.sha256 or "", file.size, "wheel", url=url, path=path)
    if file.source == "wheel":
        return found
    archive = dataclasses.replace(found, kind="archive")
    return wheel_of_archive(uv, fetch([archive], progress)[0])


def uv_program(uv: str, version: str, platform: Platform) -> Artifact:
    """Return uv itself for a platform: taken out of its wheel from the package index, or this machine's own.

    Raises:
        EnvironmentFailedError: The index can't be reached and this machine's uv is for another platform.
    """
    name = f"uv-{version}-{platform.system}-{platform.machine}-{platform.libc}"
    path = cache_folder("tools") / name
    if not path.exists():
        try:
            _extract_uv(uv, version, platform, path)
        except EnvironmentFailedError:
            here = os.uname()
            if (sys.platform, here.machine) != (platform.system, platform.machine):
                raise
            with new_file(path) as target:
                shutil.copyfile(uv, target)
    return Artifact("uv", file_digest(path), path.stat().st_size, "tool", path=str(path))


def _extract_uv(uv: str, version: str, platform: Platform, path: Path) -> None:
    folder = cache_folder("tools", f"lock-{version}")
    wanted = folder / "requirements.in"
    wanted.write_text(f"uv=={version}\n")
    argv = ["pip", "compile", "--quiet", "--no-deps", "--universal", "--no-header", "--format=pylock.toml"]
    lock = tomllib.loads(_run(uv, [*argv, str(wanted)], wanted))
    # Its wheels fit any Python; the tag only needs one to be named.
    file = locked_files(lock, Interpreter("", "3.12.0"), platform, file=f"uv {version}")[0]
    wheel = fetch([Artifact(file.name, file.sha256 or "", file.size, "wheel", url=file.location)])[0]
    with zipfile.ZipFile(wheel.path or "") as archive, new_file(path) as target:
        target.write_bytes(archive.read(f"uv-{version}.data/scripts/uv"))


def uv_environment() -> dict[str, Word]:
    """Return the variables that uv runs with on a host: its own cache, no network, nobody else's settings."""
    return {
        "UV_CACHE_DIR": At("cache", "uv"),
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
    }


def install_wheels(verb: str) -> Command:
    """Return the command that installs the wheels of ``requirements.txt``, and nothing else, into the prefix.

    Args:
        verb: ``sync`` for an environment of these alone, ``install`` beside others.
    """
    options = ["--quiet", "--require-hashes", "--no-index", "--no-build", "--compile-bytecode"]
    where: tuple[Word, ...] = ("--python", At("prefix", "bin/python"), "--find-links", At("content"))
    wanted = At("content", "requirements.txt")
    alone: tuple[Word, ...] = (wanted,) if verb == "sync" else ("--no-deps", "--requirements", wanted)
    return Command((At("content", "uv"), "pip", verb, *options, *where, *alone), uv_environment())


def _commands(interpreter: Interpreter, *, empty: bool) -> tuple[Command, ...]:
    options = ("--quiet", "--relocatable", "--no-project", "--python", interpreter.path)
    venv = Command((At("content", "uv"), "venv", *options, At("prefix")), uv_environment())
    return (venv,) if empty else (venv, install_wheels("sync"))
