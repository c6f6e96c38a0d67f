# ruff: noqa: T201, UP006, UP031, UP035, UP045
"""Compare the environment that this interpreter belongs to with its manifest, before the payload boots.

Usage: python -I verify_environment.py names|full MANIFEST [FOLDER]

Exits with 0 when they agree, with 3 after a list of the differences on standard error.
``names``: every package by name and version, what lies at the top of the packages' folder, and the interpreter's
version. ``full``: also the hash of every file. FOLDER is marked as used now.

Runs in the environment's own Python, 3.8 or newer, with the standard library only.
"""

import base64
import contextlib
import csv
import hashlib
import importlib.metadata
import json
import os
import re
import sys
from typing import Any, Dict, Iterator, List, Optional

Installed = Dict[str, List[importlib.metadata.Distribution]]
Records = Dict[str, List[List[str]]]

# Written beside packages by interpreters and by the virtual environment itself.
_NOT_PACKAGES = {"__pycache__", "_virtualenv.pth", "_virtualenv.py"}


def normal(name: Optional[str]) -> str:
    """Return a package's name as all spellings of it agree on."""
    return re.sub(r"[-_.]+", "-", name or "?").lower()


def shown_version(version: Optional[str]) -> str:
    """Return a version without what normalisation may differ in."""
    return re.sub(r"[-_]", ".", version or "?").lower()


def installed() -> Installed:
    """Return the distributions that this interpreter sees, by normalised name; two of one name are both there."""
    found: Installed = {}
    for distribution in importlib.metadata.distributions():
        found.setdefault(normal(distribution.metadata["Name"]), []).append(distribution)
    return found


def compare_names(found: Installed, wanted: Dict[str, str]) -> Iterator[str]:
    """Yield what differs between the installed and the wanted packages."""
    for name, version in sorted(wanted.items()):
        versions = [distribution.version for distribution in found.get(name, [])]
        if not versions:
            yield "missing: %s %s" % (name, version)
        elif [shown_version(each) for each in versions] != [shown_version(version)]:
            yield "different: %s: has %s, wanted %s" % (name, " and ".join(versions), version)
    for name in sorted(set(found) - set(wanted)):
        yield "not wanted: %s %s" % (name, found[name][0].version)


def record_of(distribution: importlib.metadata.Distribution) -> List[List[str]]:
    """Return the rows of a distribution's list of files."""
    text = distribution.read_text("RECORD")
    return list(csv.reader(text.splitlines())) if text else []


def compare_top(found: Installed, records: Records) -> Iterator[str]:
    """Yield packages that are named but not there, and things there that no package owns."""
    owned = set(_NOT_PACKAGES)
    folders = set()
    for name, distributions in sorted(found.items()):
        for distribution in distributions:
            folder = str(distribution.locate_file(""))
            folders.add(folder)
            tops = {row[0].split("/", 1)[0] for row in records[name] if row}
            owned |= tops
            there = set(os.listdir(folder))
            for top in sorted(tops - there - {".."} - _NOT_PACKAGES):
                yield "missing: %s of %s" % (top, name)
    for folder in sorted(folders):
        for entry in sorted(set(os.listdir(folder)) - owned):
            yield "not wanted: %s, which belongs to no package" % os.path.join(folder, entry)


def compare_files(found: Installed, records: Records, digests: Dict[str, str]) -> Iterator[str]:
    """Yield files whose content is not what was installed."""
    for name, distributions in sorted(found.items()):
        if name in digests and digest_of_record(distributions[0]) != digests[name]:
            yield "different: the list of files of %s" % name
        for row in records[name]:
            path, expected = row[0], row[1] if len(row) > 1 else ""
            where = str(distributions[0].locate_file(path))
            try:
                with open(where, "rb") as file:
                    content = file.read()
            except OSError as error:
                if not path.endswith(".pyc"):
                    yield "missing: %s of %s (%s)" % (path, name, error.strerror)
                continue
            if expected.startswith("sha256="):
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                if digest != expected[len("sha256=") :]:
                    yield "different: %s of %s" % (path, name)


def ready(folder: str) -> Dict[str, Any]:
    """Return the manifest that was published with the environment."""
    with open(os.path.join(folder, ".ready"), encoding="utf-8") as file:
        manifest: Dict[str, Any] = json.load(file)
        return manifest


def digests(manifest: Dict[str, Any]) -> Dict[str, str]:
    """Return the hash of each distribution's list of files, as it was when the environment was made."""
    return dict((manifest.get("installed") or {}).get("records", {}))


def digest_of_record(distribution: importlib.metadata.Distribution) -> str:
    """Return the hash of a distribution's list of files."""
    return hashlib.sha256((distribution.read_text("RECORD") or "").encode("utf-8")).hexdigest()


def main(mode: str, manifest_path: str, folder: Optional[str] = None) -> int:
    """Compare and return the exit status."""
    with open(manifest_path, encoding="utf-8") as file:
        manifest = json.load(file)
    found = installed()
    records = {name: [row for each in group for row in record_of(each)] for name, group in found.items()}
    differences = list(compare_names(found, manifest["packages"]))
    wanted = manifest.get("python")
    if wanted and wanted.split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
        differences.append("different: Python is %s, wanted %s" % (sys.version.split()[0], wanted))
    differences += compare_top(found, records)
    if mode == "full":
        differences += compare_files(found, records, digests(manifest if folder is None else ready(folder)))
    if differences:
        sys.stderr.write("\n".join(differences) + "\n")
        return 3
    if folder is not None:
        with contextlib.suppress(
            OSError
        ):  # a read-only environment has no last use; that must not stop a job
            os.utime(os.path.join(folder, ".used"))
    else:
        print(json.dumps({"records": {name: digest_of_record(group[0]) for name, group in found.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
