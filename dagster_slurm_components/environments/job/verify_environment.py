# ruff: noqa: PLC0415, T201, UP006, UP031, UP035, UP045
"""Compare the environment that this interpreter belongs to with its manifest, before the payload boots.

Usage: python -I verify_environment.py names|full MANIFEST [FOLDER]

Exits with 0 when they agree, with 3 after a list of the differences on standard error.
``names``: every package by name and version, the entries at the top of the packages' folder, the interpreter's
version. ``full``: also the hash of every file. FOLDER is the published environment, and is marked as used now;
without it, what is there now is printed, as it is kept in the published manifest.

Runs in the environment's own Python, 3.6 or newer, with the standard library only. It stands before every
payload, so it imports little: reading packages by ``importlib.metadata`` takes some 200 ms, this a few.
"""

import json
import os
import sys
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


def compare_files(found: Packages, digests: Dict[str, str]) -> Iterator[str]:
    """Yield files whose content is not what was installed."""
    import csv

    for name, digest in records(found).items():
        if digests.get(name) != digest:
            yield "different: the list of files of %s" % name
    for name, group in sorted(found.items()):
        folder, entry, _ = group[0]
        for row in csv.reader(record(folder, entry).splitlines()):
            if row and not row[0].endswith(".pyc"):
                said = difference(os.path.join(folder, row[0]), row[1] if len(row) > 1 else "")
                if said:
                    yield "%s: %s of %s" % (said, row[0], name)


def difference(path: str, expected: str) -> Optional[str]:
    """Return what is wrong with a file whose hash is written as wheels do: ``sha256=`` and base64."""
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    try:
        with open(path, "rb") as file:
            digest = urlsafe_b64encode(sha256(file.read()).digest()).rstrip(b"=").decode()
    except OSError:
        return "missing"
    return "different" if expected.startswith("sha256=") and expected[7:] != digest else None


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
            yield from compare_files(found, published["installed"]["records"])


def main(mode: str, manifest: str, folder: Optional[str] = None) -> int:
    """Compare and return the exit status."""
    published = None if folder is None else load(os.path.join(folder, ".ready"))
    found = list(differences(mode, load(manifest), published))
    if found:
        sys.stderr.write("\n".join(found) + "\n")
        return 3
    if folder is None:
        here = package_folders()
        print(json.dumps({"tops": top_entries(here), "records": records(installed(here))}))
        return 0
    try:
        os.utime(os.path.join(folder, ".used"))
    except OSError:
        return 0  # a read-only environment has no last use; that must not stop a job
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
