"""Environments of type ``uv``: a project with its ``uv.lock``, or a requirements file with hashes."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from dagster_slurm_components.environments.content import (
    EnvironmentPlan,
    HostPlatform,
    Interpreter,
    Progress,
    Request,
)
from dagster_slurm_components.environments.machine import digest_of, find_uv, recall, remember, run_program
from dagster_slurm_components.environments.pylock import locked_packages
from dagster_slurm_components.environments.sources import tree_digest
from dagster_slurm_components.environments.wheels import compiled, with_wheels
from dagster_slurm_components.errors import EnvironmentFailedError
from dagster_slurm_components.spec.environments import UvEnvironment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_COMMIT_OF_GIT = re.compile(r"git\+.+@[0-9a-f]{40}([0-9a-f]{24})?(#.*)?")
_SOURCE = re.compile(r'^source = \{ (?:editable|directory|virtual) = "([^"]*)"', re.MULTILINE)

_Lock = tuple[Mapping[str, Any], Mapping[str, frozenset[str]] | None, Path, str]
"""A lock as a pylock, the hashes that alone may be used, the file it came from, and a name for the environment."""


def inputs(request: Request[UvEnvironment]) -> list[object] | None:
    """Return what the plan follows from: options, lock, project and the local packages that the lock names."""
    own: list[object] = [request.spec.model_dump(mode="json"), find_uv()[1]]
    if request.spec.requirements is not None:
        return [*own, _text(request.path("requirements"))]
    project, file = request.path("project"), _lock_file(request)
    lock = _text(file)
    if "{ path = " in lock:
        return None  # of files in a local folder uv.lock keeps no hash
    trees = [(path, file.parent / path) for path in sorted(set(_SOURCE.findall(lock)))]
    own += [str(project), lock, _text(project / "pyproject.toml"), _project_python(request)]
    return [*own, *([path, tree_digest(folder)] for path, folder in trees if folder.is_dir())]


def plan(request: Request[UvEnvironment], host: HostPlatform, progress: Progress) -> EnvironmentPlan:
    """Return the plan. Builds local packages, and fetches only what a build needs."""
    spec = request.spec
    read_lock = _project_lock if spec.requirements is None else _requirements
    lock, allowed, where, name = read_lock(request)
    interpreter = _interpreter(request, lock.get("requires-python", ""), host)
    packages = locked_packages(lock, interpreter, host.platform, where, allowed)
    bare = EnvironmentPlan(
        kind="uv",
        name=name,
        platform=host.platform,
        interpreter=interpreter,
        inputs=request.prerequisites,
        entry="environment.squashfs" if spec.form == "squashfs" else "prefix",
        form=spec.form,
    )
    return with_wheels(bare, packages, progress)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"can't be read: {error.strerror}"
        hint = f"Run `uv lock` in {path.parent}." if path.name == "uv.lock" else None
        raise EnvironmentFailedError(message, where=str(path), hint=hint) from error


def _optional(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _lock_file(request: Request[UvEnvironment]) -> Path:
    """Return the lock of the project, or of the workspace above it that has it as a member."""
    project = request.path("project")
    above = (folder / "uv.lock" for folder in (project, *project.parents))
    found = next((file for file in above if file.is_file()), project / "uv.lock")
    if found.parent != project:
        members = [(found.parent / path).resolve() for path in _SOURCE.findall(_text(found))]
        found = found if project.resolve() in members else project / "uv.lock"
    return found


def _project_lock(request: Request[UvEnvironment]) -> _Lock:
    spec, project, where = request.spec, request.path("project"), _lock_file(request)
    _text(where)
    name = tomllib.loads(_text(project / "pyproject.toml")).get("project", {}).get("name", project.name)
    # --locked: a pyproject.toml that has changed since is the user's mistake, and not silently left out.
    argv = [find_uv()[0], "export", "--quiet", "--locked", "--no-header", "--format=pylock.toml"]
    argv += [f"--group={group}" for group in spec.groups] + [f"--extra={extra}" for extra in spec.extras]
    argv += [] if spec.default_groups else ["--no-default-groups"]
    argv += [] if spec.install_project else ["--no-emit-project"]
    argv += [] if where.parent == project else [f"--package={name}"]
    try:
        lock = run_program([*argv, "--directory", str(where.parent)], where=str(where))
    except EnvironmentFailedError as error:
        if "needs to be updated" in error.message:
            error.hint = f"Run `uv lock` in {project}, and commit the new lock."
        raise
    return tomllib.loads(lock), None, where, name


def _requirements(request: Request[UvEnvironment]) -> _Lock:
    where = request.path("requirements")
    text = _text(where)
    allowed, memo = _pinned(text, where), digest_of("requirements", text, find_uv()[1])
    lock = recall("pylock", memo) or compiled(where, where.parent)
    remember("pylock", memo, lock)
    return tomllib.loads(lock), allowed, where, where.parent.name


def _pinned(text: str, where: Path) -> Mapping[str, frozenset[str]]:
    """Return the hashes of each requirement; every one must be pinned and have some, or be a commit."""
    allowed: dict[str, frozenset[str]] = {}
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        plain = re.sub(r"(^|\s)#.*", "", line).strip()
        if not plain or (plain.startswith("--") and "--hash" not in plain):
            continue
        hashes, place = frozenset(_HASH.findall(plain)), f"{where}:{number}"
        try:
            requirement = Requirement(plain.partition(" --")[0].strip())
        except InvalidRequirement as error:
            raise EnvironmentFailedError(f"can't read {plain!r}: {error}", where=place) from error
        if _COMMIT_OF_GIT.fullmatch(requirement.url or ""):
            continue
        if not hashes or not (requirement.url or re.fullmatch(r"==[^*,]+", str(requirement.specifier))):
            raise EnvironmentFailedError(
                f"{requirement} is not pinned to one version with its sha256",
                where=place,
                hint="Make the file by `uv pip compile --generate-hashes` or `uv export`.",
            )
        name = canonicalize_name(requirement.name)
        allowed[name] = allowed.get(name, frozenset()) | hashes
    return allowed


def _interpreter(request: Request[UvEnvironment], requires: str, host: HostPlatform) -> Interpreter:
    """Return the host's Python that fits what was asked, what the project names, and what the lock requires."""
    spec = request.spec
    wish = spec.python or (_project_python(request) if spec.requirements is None else None)
    required = SpecifierSet(requires)
    for python in host.interpreters:
        fits = python.implementation == "cpython" and required.contains(python.version, prereleases=True)
        if fits and _is_wished(python, wish):
            return python
    listed = ", ".join(f"{python.version} ({python.path})" for python in host.interpreters) or "none"
    wanted = f"Python {wish}" if wish else f"a Python {requires}"
    raise EnvironmentFailedError(
        f"the host has no interpreter for this environment: wanted is {wanted}, there is {listed}",
        hint="Set the environment's `python` to the path of one on the host, or load one by `modules: [python/...]`.",
    )


def _project_python(request: Request[UvEnvironment]) -> str | None:
    folders = (request.path("project"), _lock_file(request).parent)
    text = next(filter(None, (_optional(folder / ".python-version") for folder in folders)), "")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0].removeprefix("cpython-").removeprefix("python") if lines else None


def _is_wished(python: Interpreter, wish: str | None) -> bool:
    if wish is None or not wish[0].isdigit():
        return True  # a path or a program's name: the probe looked for exactly that
    wanted, has = wish.rstrip("t").split("."), python.version.split(".")
    return has[: len(wanted)] == wanted and bool(python.abi_flags) == wish.endswith("t")
