# ruff: noqa: PLC0415, T201, UP006, UP031, UP035, UP045
"""Compare the environment that this interpreter belongs to with its manifest, before the payload boots.

Usage: python -I verify_environment.py names|full MANIFEST [FOLDER]

Exits with 0 when they agree, with 3 after a list of the differences on standard error. ``names``: packages with their
versions, the entries at the top of their folder, the interpreter's version; ``full``: also the hash of every file.
FOLDER is the published environment, and is marked as used now; without it what is there is printed, as the published
manifest keeps it.

Runs in the environment's own Python, 3.7 or newer, with the standard library only. It stands before every
payload, so it imports little: reading packages by ``importlib.metadata`` takes some 200 ms, this a few.
"""

from __future__ import annotations  # their names are never imported, see below

import json
import os
import sys

TYPE_CHECKING = False  # importing typing would cost as much as the comparison itself
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

    Json = Dict[str, Any]
    Packages = Dict[str, List[Tuple[str, str, str]]]


def _normal(name: str) -> str:
    """Return a package's name as all spellings of it agree on."""
    return "-".join(part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part)


def _normal_version(version: str) -> str:
    """Return a version as the name of a folder can hold it."""
    return version.lower().replace("-", "_")


def _package_folders() -> List[str]:
    return [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]


def _installed() -> Packages:
    """Return folder, entry and version of each distribution, by normalised name; two of one name are both there."""
    packages: Packages = {}
    for folder in _package_folders():
        for entry in os.listdir(folder):
            stem, _, end = entry.rpartition(".")
            if end == "dist-info":
                name, _, version = stem.partition("-")
                packages.setdefault(_normal(name), []).append((folder, entry, version))
    return packages


def _top_entries() -> Set[str]:
    return {entry for folder in _package_folders() for entry in os.listdir(folder)} - {"__pycache__"}


def _compare_packages(packages: Packages, manifest: Json) -> Iterator[str]:
    wanted = manifest["packages"]
    for name, version in sorted(wanted.items()):
        versions = [each[2] for each in packages.get(name, [])]
        if not versions:
            yield "missing: %s %s" % (name, version)
        elif [_normal_version(each) for each in versions] != [_normal_version(version)]:
            yield "different: %s: has %s, wanted %s" % (name, " and ".join(versions), version)
    for name in sorted(set(packages) - set(wanted)):
        yield "not wanted: %s %s" % (name, packages[name][0][2])
    python = manifest.get("python")
    if python and python.split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        yield "different: Python is %s, wanted %s" % (sys.version.split()[0], python)


def _compare_tops(published: Json) -> Iterator[str]:
    """Yield entries that are gone, and those that no package brought."""
    has, wanted = _top_entries(), set(published["tops"])
    for entry in sorted(wanted - has):
        yield "missing: %s" % entry
    for entry in sorted(has - wanted):
        if not entry.endswith(".dist-info"):
            yield "not wanted: %s, which no package of the lock brought" % entry


def _compare_files(packages: Packages, published: Json) -> Iterator[str]:
    for name, digest in _records(packages).items():
        if published["records"].get(name) != digest:
            yield "different: the list of files of %s" % name
    for word, path, owner in _deviations(packages):
        if path not in published["deviating"]:
            yield "%s: %s of %s" % (word, path, owner)


def _record(folder: str, entry: str) -> bytes:
    try:
        with open(os.path.join(folder, entry, "RECORD"), "rb") as file:
            return file.read()
    except OSError:
        return b""


def _records(packages: Packages) -> Dict[str, str]:
    from hashlib import sha256

    return {name: sha256(_record(*group[0][:2])).hexdigest() for name, group in packages.items()}


def _deviations(packages: Packages) -> Iterator[Tuple[str, str, str]]:
    """Yield how, where and of whom files are not what their packages list."""
    from hashlib import sha256

    for root, path, expected, owner in [*_python_files(packages), *_conda_files()]:
        place = os.path.join(root, path)
        try:
            if not expected:  # then it need only be there
                os.lstat(place)
                continue
            with open(place, "rb") as file:
                if sha256(file.read()).hexdigest() != expected:
                    yield "different", path, owner
        except OSError:
            yield "missing", path, owner


def _python_files(packages: Packages) -> Iterator[Tuple[str, str, str, str]]:
    """Yield folder and path of the files that Python packages list, their SHA-256 or nothing, and their package."""
    import csv
    from base64 import urlsafe_b64decode

    for name, group in sorted(packages.items()):
        folder, entry, _ = group[0]
        for row in csv.reader(_record(folder, entry).decode("utf-8").splitlines()):
            if row and not row[0].endswith(".pyc"):
                kind, _, digest = (row[1] if len(row) > 1 else "").partition("=")
                yield folder, row[0], urlsafe_b64decode(digest + "==").hex() if kind == "sha256" else "", name


def _conda_files() -> Iterator[Tuple[str, str, str, str]]:
    """Yield the same of the files that conda packages list."""
    folder = os.path.join(sys.prefix, "conda-meta")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if not name.endswith(".json"):
            continue
        package = _load(folder, name)
        for entry in (package.get("paths_data") or {}).get("paths", ()):
            if not entry["_path"].endswith(".pyc"):
                digest = entry.get("sha256_in_prefix") or entry.get("sha256") or ""
                linked = entry.get("path_type") == "softlink"
                yield sys.prefix, entry["_path"], "" if linked else digest, package["name"]


def _load(*path: str) -> Json:
    with open(os.path.join(*path), encoding="utf-8") as file:
        value: Json = json.load(file)
        return value


def _state(packages: Packages) -> Json:
    """Return what is published with an environment: what lies where, and what is not as its packages list it.

    Of conda packages a few files never are: those that hold the prefix's path, and the scripts made for it.
    """
    conda = os.path.isdir(os.path.join(sys.prefix, "conda-meta"))
    deviating = sorted({path for _, path, _ in _deviations(packages)}) if conda else []
    return {"tops": sorted(_top_entries()), "records": _records(packages), "deviating": deviating}


def main(mode: str, manifest: str, folder: Optional[str] = None) -> int:
    """Compare and return the exit status."""
    packages = _installed()
    lines = list(_compare_packages(packages, _load(manifest)))
    if folder is not None:
        published = _load(folder, ".ready")["installed"]
        lines += _compare_tops(published)
        lines += _compare_files(packages, published) if mode == "full" else []
    if lines:
        sys.stderr.write("\n".join(lines) + "\n")
        return 3
    if folder is None:
        print(json.dumps(_state(packages)))
        return 0
    try:
        os.utime(os.path.join(folder, ".used"))
    except OSError:
        return 0  # a read-only environment has no last use; that must not stop a job
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
