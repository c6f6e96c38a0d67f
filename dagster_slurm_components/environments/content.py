"""Environments as content: what one consists of, and the key that this content has. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ArtifactKind = Literal["wheel", "conda", "archive", "image", "tool"]

KEY_FORMAT = 1
"""Part of every key: raised when environments are built differently from the same content."""

_KEY_DIGITS = 32

SQUASHED = "environment.squashfs"
"""File name of an environment that is an image."""


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
        platform: What it is made for.
        packer: The program that makes it, with its version: ``uv 0.13.9``.
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
    platform: Platform
    packer: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
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


def build_order(plan: EnvironmentPlan, pieces: Mapping[str, int]) -> dict[str, Any]:
    """Return what the builder is told: JSON values.

    Args:
        plan: The environment.
        pieces: Number of uploaded pieces by the hash of each artifact that travelled; it is put together from them.
    """

    def plain(word: Word) -> Any:
        return {"at": word.place, "path": word.path} if isinstance(word, At) else word

    return {
        "key": plan.key,
        "manifest": plan.manifest(),
        "artifacts": [
            {
                "name": item.name,
                "sha256": item.sha256,
                "pieces": pieces.get(item.sha256, 0),
                "tool": item.kind == "tool",
            }
            for item in plan.artifacts
        ],
        "files": dict(plan.files),
        "commands": [
            {
                "argv": [plain(word) for word in command.argv],
                "env": {name: plain(word) for name, word in command.env.items()},
            }
            for command in plan.commands
        ],
        "unpack": list(plan.unpack),
        "entry": plan.entry,
        "form": plan.form,
    }


def compare(published: Mapping[str, Any], wanted: Mapping[str, Any], limit: int = 20) -> list[str]:
    """Return in what two manifests differ, one line each.

    Args:
        published: The manifest of what exists.
        wanted: The manifest of what is asked for.
        limit: How many lines are told; one more says how many are left out.
    """
    # Python's and conda's packages; conda's win, for they tell the build too.
    have, want = ({**each["packages"], **each["inputs"].get("conda", {})} for each in (published, wanted))
    lines = [f"missing: {name} {want[name]}" for name in want if name not in have]
    lines += [f"not wanted: {name} {have[name]}" for name in have if name not in want]
    pairs = [(name, have[name], want[name]) for name in want if name in have]
    pairs += [(n, published.get(n), wanted.get(n)) for n in ("kind", "form", "packer", "platform", "python")]
    pairs += [(n, published["inputs"].get(n), wanted["inputs"].get(n)) for n in ("modules", "setup")]
    lines += [f"different: {name}: has {old}, wanted {new}" for name, old, new in pairs if old != new]
    # Files whose content differs though their package's version does not.
    identities = {name: identity for name, _, identity in published["artifacts"]}
    lines += [
        f"different: {name}: other content under the same name"
        for name, _, identity in wanted["artifacts"]
        if identities.get(name, identity) != identity
    ]
    return lines if len(lines) <= limit else [*lines[:limit], f"... and {len(lines) - limit} more"]
