"""What an environment is: what is asked for, what it consists of, and the key that this content has. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from dagster_slurm_components.spec.environments import EnvironmentSpec

Spec = TypeVar("Spec", bound=EnvironmentSpec)

Progress = Callable[[str, int, int], None]
"""Called with a stage (``fetch``, ``upload``, ``build``), the bytes done and all bytes; a build has neither."""


def silent(*told: object) -> None:
    """Show no progress, tell nobody."""


ArtifactKind = Literal["wheel", "conda", "archive", "folder", "commit", "image", "tool"]

GROUNDWORK = ("before_modules", "modules", "setup")
"""The fields of any environment that say what it is made under, as part of what it is."""
KEY_FORMAT = 1
"""Part of every key: raised when environments are built differently from the same content."""


@dataclass(frozen=True)
class Artifact:
    """One file that an environment is built from; it can be fetched from ``url``, or lies at ``path`` on this machine.

    Of some the key knows by other words: a ``tool`` only makes the environment, and the packer's version stands for it;
    an ``archive`` is made from what ``inputs`` say, for its place on one host; a wheel that is built here has the hash
    of its source as ``identity``, for two builds of one source differ in their bytes. Until then that of a ``commit``,
    whose repository is the ``url``, is the commit's.

    Attributes:
        lock: The file that names it; the settings beside it know the logins.
        subdirectory: Where the package lies in an archive or commit.
    """

    name: str
    sha256: str
    size: int | None
    kind: ArtifactKind
    url: str | None = None
    path: str | None = None
    identity: str | None = None
    lock: str | None = None
    subdirectory: str = ""


@dataclass(frozen=True)
class Interpreter:
    """A Python of the host; ``abi_flags`` are ``t`` for a free-threaded build, otherwise empty."""

    path: str
    version: str
    implementation: str = "cpython"
    abi_flags: str = ""

    @property
    def minor(self) -> tuple[int, int]:
        """The version that compiled packages are made for."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


@dataclass(frozen=True)
class Platform:
    """What packages for a host must fit: ``linux``, ``x86_64``, ``glibc`` or ``musl``, its version.

    Where the system is ``darwin`` there is no C library, and the version is that of macOS.
    """

    system: str
    machine: str
    libc: str = ""
    libc_version: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        """Render for people: ``linux x86_64 (glibc 2.36)``."""
        version = ".".join(str(part) for part in self.libc_version)
        name = "macOS" if self.system == "darwin" else self.libc
        return f"{self.system} {self.machine}" + (f" ({name} {version})" if name else "")


@dataclass(frozen=True)
class Request(Generic[Spec]):
    """An environment as the user wrote it; ``base`` returns where the relative path in a field of it starts."""

    spec: Spec
    base: Callable[[str], Path]

    @property
    def prerequisites(self) -> Mapping[str, object]:
        """The modules and shell commands that the environment is made under, as part of what it is."""
        return {name: value for name in GROUNDWORK if (value := getattr(self.spec, name))}

    def path(self, name: str) -> Path:
        """Return the absolute path that a field of the spec names."""
        return (self.base(name) / Path(getattr(self.spec, name)).expanduser()).absolute()


@dataclass(frozen=True)
class HostPlatform:
    """What the host answered: its platform and its Pythons, the preferred one first; and the working folder there."""

    platform: Platform
    interpreters: tuple[Interpreter, ...]
    workdir: str

    @classmethod
    def read(cls, answer: Mapping[str, Any], workdir: str) -> HostPlatform:
        """Read the builder's answer."""
        major, minor = answer["libc_version"]
        platform = Platform(answer["system"], answer["machine"], answer["libc"], (int(major), int(minor)))
        return cls(platform, tuple(Interpreter(**row) for row in answer["interpreters"]), workdir)


@dataclass(frozen=True)
class EnvironmentPlan:
    """An environment before it exists: all that defines it, and how it is made.

    Attributes:
        kind: The environment's type.
        name: What people call it; no part of the key.
        packer: The program that makes it, with its version: ``uv 0.13.9``.
        packages: Version of each Python package that the lock names, by normalised name.
        brought: The same of those that conda packages bring along; they follow from ``inputs``. The environment's own
            interpreter must report exactly both.
        interpreter: The host's Python that it uses, or the one that it brings.
        requirements: What uv installs from the wheels among the artifacts, each pinned by its hash.
        inputs: Whatever else shapes it, such as the modules that are loaded for its build.
        unpack: Names of the artifacts that are archives of the prefix.
        entry: Where it lies below its folder: ``prefix``, or the file name of an image.
        form: How it lies there: ``squashfs`` is an image of the prefix, ``image`` one that a container runtime makes.
    """

    kind: str
    name: str
    platform: Platform
    packer: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    brought: Mapping[str, str] = field(default_factory=dict)
    interpreter: Interpreter | None = None
    requirements: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    unpack: tuple[str, ...] = ()
    entry: str = "prefix"
    form: Literal["folder", "squashfs", "image"] = "folder"

    @property
    def key(self) -> str:
        """Hash of all that defines the environment: any change changes it, and nothing else does."""
        parts = {
            "format": KEY_FORMAT,
            "kind": self.kind,
            "packer": self.packer,
            # An environment made for one C library works with any newer one: the host's update changes nothing.
            "platform": [self.platform.system, self.platform.machine, self.platform.libc],
            "python": self.interpreter
            and [self.interpreter.path, self.interpreter.version, self.interpreter.abi_flags],
            "packages": dict(self.packages),
            "content": sorted(
                [item.name, item.identity or item.sha256]
                for item in self.artifacts
                if item.kind not in ("tool", "archive")
            ),
            "inputs": dict(self.inputs),
            **({} if self.form == "folder" else {"form": self.form}),
        }
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def manifest(self) -> dict[str, Any]:
        """Return what the builder publishes with the environment, and what a job compares it with."""
        return {
            "format": KEY_FORMAT,
            "key": self.key,
            "kind": self.kind,
            "name": self.name,
            "packer": self.packer,
            "platform": str(self.platform),
            "python": self.interpreter.version if self.interpreter else None,
            "packages": dict(sorted({**self.brought, **self.packages}.items())),
            "artifacts": sorted(
                [item.name, item.sha256, item.identity or item.sha256] for item in self.artifacts
            ),
            "inputs": dict(self.inputs),
            "form": self.form,
            "entry": self.entry,
        }


def build_order(plan: EnvironmentPlan, pieces: Mapping[str, int]) -> dict[str, Any]:
    """Return what the builder is told; ``pieces`` counts those that an artifact, by its hash, was uploaded in."""
    return {
        "key": plan.key,
        "manifest": plan.manifest(),
        "artifacts": [
            {
                "name": each.name,
                "sha256": each.sha256,
                "pieces": pieces.get(each.sha256, 0),
                "tool": each.kind == "tool",
            }
            for each in plan.artifacts
        ],
        "unpack": list(plan.unpack),
        "python": plan.interpreter.path if plan.interpreter and not plan.unpack else None,
        "requirements": plan.requirements,
    }


def compare(published: Mapping[str, Any], wanted: Mapping[str, Any], limit: int = 20) -> list[str]:
    """Return in what two manifests differ, ``limit`` lines at most; one more says how many are left out."""
    # Python's and conda's packages; conda's win, for they tell the build too.
    have, want = ({**each["packages"], **each["inputs"].get("conda", {})} for each in (published, wanted))
    lines = [f"missing: {name} {want[name]}" for name in want if name not in have]
    lines += [f"not wanted: {name} {have[name]}" for name in have if name not in want]
    pairs = [(name, have[name], want[name]) for name in want if name in have]
    pairs += [(n, published.get(n), wanted.get(n)) for n in ("kind", "form", "packer", "platform", "python")]
    pairs += [(n, published["inputs"].get(n), wanted["inputs"].get(n)) for n in GROUNDWORK]
    lines += [f"different: {name}: has {old}, wanted {new}" for name, old, new in pairs if old != new]
    # Files whose content differs though their package's version does not.
    identities = {name: identity for name, _, identity in published["artifacts"]}
    lines += [
        f"different: {name}: other content under the same name"
        for name, _, identity in wanted["artifacts"]
        if identities.get(name, identity) != identity
    ]
    return lines if len(lines) <= limit else [*lines[:limit], f"... and {len(lines) - limit} more"]
