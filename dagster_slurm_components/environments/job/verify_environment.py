# ruff: noqa: PLC0415, T201, UP006, UP031, UP035, UP045
"""Compare the environment that this interpreter belongs to with its manifest, before the payload boots.

Usage: python -I verify_environment.py names|full MANIFEST [FOLDER]

Exits with 0 when they agree, with 3 after a list of the differences on standard error.
``names``: every package by name and version, the entries at the top of the packages' folder, the interpreter's
version. ``full``: also the hash of every file. FOLDER is the published environment, and is marked as used now;
without it, what is there now is printed, as it is kept in the published manifest.

Runs in the environment's own Python, 3.7 or newer, with the standard library only. It stands before every
payload, so it imports little: reading packages by ``importlib.metadata`` takes some 200 ms, this a few.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False  # importing typing would cost as much as the comparison itself
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Tuple

    Json = Dict[str, Any]
    Packages = Dict[str, List[Tuple[str, str, str]]]

_NOT_CONTENT = {"__pycache__"}


def normal(name: str) -> str:
    """Return a package's name as all spellings of it agree on."""
    return "-".join(part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part)


def normal_version(version: str) -> str:
    """Return a version as the name of a folder can hold it."""
    return version.lower().replace("-", "_")


def package_folders() -> List[str]:
    """Return the folders that this interpreter finds packages in."""
    return [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]


def installed(folders: List[str]) -> Packages:
    """Return folder, entry and version of each distribution, by normalised name; two of one name are both there."""
    found: Packages = {}
    for folder in folders:
        for entry in os.listdir(folder):
            stem, dot, end = entry.rpartition(".")
            if dot and end == "dist-info":
                name, _, version = stem.partition("-")
                found.setdefault(normal(name), []).append((folder, entry, version))
    return found


def compare_names(found: Packages, wanted: Dict[str, str]) -> Iterator[str]:
    """Yield what differs between the installed and the wanted packages."""
    for name, version in sorted(wanted.items()):
        versions = [each[2] for each in found.get(name, [])]
        if not versions:
            yield "missing: %s %s" % (name, version)
        elif [normal_version(each) for each in versions] != [normal_version(version)]:
            yield "different: %s: has %s, wanted %s" % (name, " and ".join(versions), version)
    for name in sorted(set(found) - set(wanted)):
        yield "not wanted: %s %s" % (name, found[name][0][2])


def top_entries(folders: List[str]) -> List[str]:
    """Return what lies at the top of the folders of packages."""
    return sorted({entry for folder in folders for entry in os.listdir(folder)} - _NOT_CONTENT)


def compare_tops(there: List[str], wanted: List[str]) -> Iterator[str]:
    """Yield entries that are gone, and those that no package brought."""
    for entry in sorted(set(wanted) - set(there)):
        yield "missing: %s" % entry
    for entry in sorted(set(there) - set(wanted)):
        if not entry.endswith(".dist-info"):
            yield "not wanted: %s, which no package of the lock brought" % entry


def records(found: Packages) -> Dict[str, str]:
    """Return the hash of each distribution's list of files."""
    from hashlib import sha256

    return {name: sha256(record(*group[0][:2]).encode("utf-8")).hexdigest() for name, group in found.items()}


def record(folder: str, entry: str) -> str:
    """Return a distribution's list of files, with their hashes."""
    try:
        with open(os.path.join(folder, entry, "RECORD"), encoding="utf-8", newline="") as file:
            return file.read()
    except OSError:
        return ""


def compare_files(found: Packages, published: Json) -> Iterator[str]:
    """Yield files whose content is not what was installed."""
    for name, digest in records(found).items():
        if published["records"].get(name) != digest:
            yield "different: the list of files of %s" % name
    known = set(published["deviating"])
    for said, path, owner in deviations(found):
        if path not in known:
            yield "%s: %s of %s" % (said, path, owner)


def deviations(found: Packages) -> Iterator[Tuple[str, str, str]]:
    """Yield how, where and of whom files are not what their packages list."""
    for name, group in sorted(found.items()):
        folder, entry, _ = group[0]
        for path, digest in python_files(folder, entry):
            said = difference(os.path.join(folder, path), digest)
            if said:
                yield said, path, name
    for path, digest, owner in conda_files():
        said = difference(os.path.join(sys.prefix, path), digest)
        if said:
            yield said, path, owner


def python_files(folder: str, entry: str) -> Iterator[Tuple[str, str]]:
    """Yield the files that a Python package lists, with their SHA-256 or nothing."""
    import csv
    from base64 import urlsafe_b64decode

    for row in csv.reader(record(folder, entry).splitlines()):
        if row and not row[0].endswith(".pyc"):
            kind, _, digest = (row[1] if len(row) > 1 else "").partition("=")
            yield row[0], urlsafe_b64decode(digest + "==").hex() if kind == "sha256" else ""


def conda_files() -> Iterator[Tuple[str, str, str]]:
    """Yield the files that conda packages list, with their SHA-256 or nothing, and their package."""
    folder = os.path.join(sys.prefix, "conda-meta")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        if name.endswith(".json"):
            package = load(os.path.join(folder, name))
            for entry in (package.get("paths_data") or {}).get("paths", ()):
                if not entry["_path"].endswith(".pyc"):
                    digest = entry.get("sha256_in_prefix") or entry.get("sha256") or ""
                    linked = entry.get("path_type") == "softlink"
                    yield entry["_path"], "" if linked else digest, package["name"]


def difference(path: str, expected: str) -> Optional[str]:
    """Return what is wrong with a file; without an expected hash it need only be there."""
    from hashlib import sha256

    if not expected:
        return None if os.path.lexists(path) else "missing"
    try:
        with open(path, "rb") as file:
            return None if sha256(file.read()).hexdigest() == expected else "different"
    except OSError:
        return "missing"


def load(path: str) -> Json:
    """Read a JSON file."""
    with open(path, encoding="utf-8") as file:
        value: Json = json.load(file)
        return value


def differences(mode: str, manifest: Json, published: Optional[Json]) -> Iterator[str]:
    """Yield everything in which this environment is not what it should be."""
    folders = package_folders()
    found = installed(folders)
    yield from compare_names(found, manifest["packages"])
    wanted = manifest.get("python")
    if wanted and wanted.split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        yield "different: Python is %s, wanted %s" % (sys.version.split()[0], wanted)
    if published is not None:
        yield from compare_tops(top_entries(folders), published["installed"]["tops"])
        if mode == "full":
            yield from compare_files(found, published["installed"])


def state() -> Json:
    """Return what is published with an environment: what lies where, and what is not as its packages list it.

    Of conda packages a few files never are: those that hold the prefix's path, and the scripts made for it.
    """
    folders = package_folders()
    found = installed(folders)
    conda = os.path.isdir(os.path.join(sys.prefix, "conda-meta"))
    deviating = sorted({path for _, path, _ in deviations(found)}) if conda else []
    return {"tops": top_entries(folders), "records": records(found), "deviating": deviating}


def main(mode: str, manifest: str, folder: Optional[str] = None) -> int:
    """Compare and return the exit status."""
    published = None if folder is None else load(os.path.join(folder, ".ready"))
    found = list(differences(mode, load(manifest), published))
    if found:
        sys.stderr.write("\n".join(found) + "\n")
        return 3
    if folder is None:
        print(json.dumps(state()))
        return 0
    try:
        os.utime(os.path.join(folder, ".used"))
    except OSError:
        return 0  # a read-only environment has no last use; that must not stop a job
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
