"""Environments as content: what one consists of, and the key that this content has. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

ArtifactKind = Literal["wheel", "conda", "archive", "image", "tool"]

KEY_FORMAT = 1
"""Part of every key: raised when environments are built differently from the same content."""

_KEY_DIGITS = 32


@dataclass(frozen=True)
class Artifact:
    """One file that an environment is built from.

    Attributes:
        name: Its file name.
        sha256: Hash of its bytes, 64 hex digits.
        size: Its size in bytes, where the lock says it.
        kind: What it is. Of some the key knows by other words: a ``tool`` only makes the environment, and the packer's
            version stands for it; an ``archive`` is made from what ``inputs`` say, for its place on one host.
        url: Where it can be fetched.
        path: Where it lies on this machine, if it does.
        identity: What stands for it in the key where two builds of the same source differ in their bytes
            (a wheel built from a local project: the hash of its source); otherwise its own hash.
    """

    name: str
    sha256: str
    size: int | None
    kind: ArtifactKind
    url: str | None = None
    path: str | None = None
    identity: str | None = None

    @property
    def stored(self) -> str:
        """Where it lies below the host's store."""
        return f"{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class At:
    """A path below one of the builder's folders, as a word of a command.

    Attributes:
        place: ``prefix`` (the environment that is being built), ``content`` (the artifacts by name, and the
            plan's ``files``) or ``cache`` (kept between builds).
        path: Relative to it; empty for the folder itself.
    """

    place: Literal["prefix", "content", "cache"]
    path: str = ""


Word = str | At


@dataclass(frozen=True)
class Command:
    """A command of a recipe: run without a shell, in a fresh environment with ``env``."""

    argv: tuple[Word, ...]
    env: Mapping[str, Word] = field(default_factory=dict)


@dataclass(frozen=True)
class Interpreter:
    """A Python of the host.

    Attributes:
        path: Its program.
        version: ``3.11.7``.
        implementation: ``cpython``.
        abi_flags: ``t`` for a free-threaded build, otherwise empty.
    """

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
    """What packages for a host must fit.

    Attributes:
        system: ``linux`` or ``darwin``, as ``sys.platform`` says it.
        machine: ``x86_64``, ``aarch64``, ``arm64``...
        libc: ``glibc`` or ``musl``, or nothing where that doesn't matter.
        libc_version: Of the C library; of macOS where the system is ``darwin``.
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
class EnvironmentPlan:
    """An environment before it exists: all that defines it, and how it is made.

    Attributes:
        kind: The environment's type: ``uv``, ``pixi``, ``conda``, ``container``.
        name: What people call it; no part of the key.
        packer: The program that makes it, with its version: ``uv 0.13.9``.
        platform: What it is made for.
        packages: Version of each Python package that the lock names, by normalised name.
        brought: The same of those that conda packages bring along; they follow from ``inputs``. The environment's own
            interpreter must report exactly both.
        artifacts: All files it is built from.
        interpreter: The host's Python that it uses, if it brings none.
        commands: How the builder makes it from ``content``, in order.
        files: Texts that the builder writes into ``content``, by name.
        inputs: Whatever else shapes it, such as the modules that are loaded for its build.
        unpack: Names of the artifacts that are archives of the prefix, before any command.
        entry: Where the environment lies below its folder: ``prefix``, or an image's file name.
        form: ``folder``, or ``squashfs``: the prefix is made aside and becomes an image, named by ``entry``.
    """

    kind: str
    name: str
    packer: str
    platform: Platform
    packages: Mapping[str, str]
    artifacts: tuple[Artifact, ...]
    brought: Mapping[str, str] = field(default_factory=dict)
    interpreter: Interpreter | None = None
    commands: tuple[Command, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    unpack: tuple[str, ...] = ()
    entry: str = "prefix"
    form: Literal["folder", "squashfs"] = "folder"

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
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]

    @property
    def size(self) -> int:
        """Bytes of all artifacts whose size is known."""
        return sum(artifact.size or 0 for artifact in self.artifacts)

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
        }


def build_order(plan: EnvironmentPlan, workdir: str, pieces: Mapping[str, int]) -> dict[str, Any]:
    """Return what the builder is told: JSON values.

    Args:
        plan: The environment.
        workdir: The profile's working folder on the host.
        pieces: Number of uploaded pieces by the hash of each artifact that travelled; it is put together from them.
    """
    return {
        "workdir": workdir,
        "key": plan.key,
        "manifest": plan.manifest(),
        "artifacts": [
            {
                "name": item.name,
                "sha256": item.sha256,
                "size": item.size,
                "pieces": pieces.get(item.sha256, 0),
                "tool": item.kind == "tool",
            }
            for item in plan.artifacts
        ],
        "files": dict(plan.files),
        "commands": [
            {
                "argv": [_word(word) for word in command.argv],
                "env": {name: _word(word) for name, word in command.env.items()},
            }
            for command in plan.commands
        ],
        "unpack": list(plan.unpack),
        "entry": plan.entry,
        "form": plan.form,
    }


def _word(word: Word) -> Any:
    return {"at": word.place, "path": word.path} if isinstance(word, At) else word


@dataclass(frozen=True)
class Difference:
    """What an environment lacks or has beyond another.

    Attributes:
        missing: ``name version`` of packages that are not there.
        extra: ``name version`` of packages that should not be there.
        changed: ``name: has X, wanted Y``.
    """

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def lines(self, limit: int = 20) -> list[str]:
        """Return one line a difference, at most ``limit``."""
        lines = [f"missing: {text}" for text in self.missing]
        lines += [f"not wanted: {text}" for text in self.extra]
        lines += [f"different: {text}" for text in self.changed]
        return lines if len(lines) <= limit else [*lines[:limit], f"... and {len(lines) - limit} more"]


def compare(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> Difference:
    """Return in what two manifests differ.

    Args:
        there: The manifest of what exists.
        wanted: The manifest of what is asked for.
    """
    have, want = _all_packages(there), _all_packages(wanted)
    changed = [
        f"{name}: has {have[name]}, wanted {want[name]}"
        for name in want
        if name in have and have[name] != want[name]
    ]
    changed += [
        f"{name}: has {there.get(name)}, wanted {wanted.get(name)}"
        for name in ("kind", "form", "packer", "platform", "python")
        if there.get(name) != wanted.get(name)
    ]
    changed += [
        f"{name}: has {there['inputs'].get(name)}, wanted {wanted['inputs'].get(name)}"
        for name in ("modules", "setup")
        if there["inputs"].get(name) != wanted["inputs"].get(name)
    ]
    changed += _rebuilt(there["artifacts"], wanted["artifacts"])
    return Difference(
        missing=tuple(f"{name} {want[name]}" for name in want if name not in have),
        extra=tuple(f"{name} {have[name]}" for name in have if name not in want),
        changed=tuple(changed),
    )


def _all_packages(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return Python's and conda's packages; conda's win, for they tell the build too."""
    return {**manifest["packages"], **manifest["inputs"].get("conda", {})}


def _rebuilt(there: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> list[str]:
    """Return the files whose content differs though their package's version does not."""
    have = {name: identity for name, _, identity in there}
    return [
        f"{name}: other content under the same name"
        for name, _, identity in wanted
        if name in have and have[name] != identity
    ]
