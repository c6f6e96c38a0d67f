"""Run the tests that need Slurm against several of them, and print a table: version, passed, failed, skipped and why.

Usage: test_slurms.py [--smoke] [NAME...] [-- PYTEST ARGUMENT...]

NAME is ``here``, the Slurm of this system, or one of the roots of slurm_roots.py; by default ``here``, ``trixie`` and
``sid``. In a root a copy of the checkout is tested, with a virtual environment that stays there. ``--smoke`` runs a
choice of the tests only. PYTEST_WORKERS says how many at a time (4).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import slurm_roots
from slurm_roots import CHECKOUT, ROOTS, CannotMakeError
from slurm_testcluster.lock import folder_lock

HERE = "here"
DEFAULT = (HERE, "trixie", "sid")
# Frameworks take gigabytes in each root; `make test` tests them on this system's Slurm.
ALL, SMOKE = "slurm and not frameworks", "slurm and smoke"
COPY, RESULTS = Path("/root/checkout"), Path(".cache/slurm-tests.xml")
# What a copy keeps from one run to the next.
KEPT = (".venv", ".cache")

_FACTS = 'slurmd -V; . /etc/os-release; echo "$PRETTY_NAME"; .venv/bin/python -V'


@dataclass(frozen=True)
class Place:
    """Where tests run.

    Attributes:
        name: Its name on the command line.
        folder: The checkout, or the copy of it, as seen from outside.
        enter: What a command line there begins with.
    """

    name: str
    folder: Path
    enter: tuple[str, ...] = ()

    def run(self, script: str, *arguments: str) -> list[str]:
        """Return the command line that runs a few lines of shell in the checkout there."""
        checkout = str(COPY) if self.enter else str(CHECKOUT)
        return [*self.enter, "sh", "-c", 'cd "$1"; shift; ' + script, "sh", checkout, *arguments]


@dataclass(frozen=True)
class Row:
    """What came of the tests of one Slurm."""

    facts: tuple[str, ...]
    passed: int
    failed: tuple[str, ...]
    skipped: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        skipped = "; ".join(f"{count}: {reason}" for reason, count in self.skipped) or "0"
        return f"| {' | '.join(self.facts)} | {self.passed} | {len(self.failed)} | {skipped} |"


def place(name: str) -> Place:
    """Make a root if need be, with what is in the checkout now.

    Raises:
        CannotMakeError: It can't be made.
    """
    if name == HERE:
        return Place(name, CHECKOUT)
    ROOTS[name].ensure()
    folder = ROOTS[name].folder / COPY.relative_to("/")
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.name not in KEPT:
            subprocess.run(["rm", "-rf", "--one-file-system", "--", str(entry)], check=True)
    list_files = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, stdout=subprocess.PIPE, check=True).stdout.split(b"\0")
    there = [file for file in listed if (CHECKOUT / os.fsdecode(file)).is_file() and file]
    pack = ["tar", "-C", str(CHECKOUT), "-c", "--null", "--verbatim-files-from", "-T", "-"]
    packed = subprocess.run(pack, input=b"\0".join(there), stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-C", str(folder), "-x"], input=packed, check=True)
    # Tests ask git what belongs to the checkout.
    nobody = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    for words in (("init", "-q"), ("add", "-A"), (*nobody, "commit", "-q", "-m", "the checkout")):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return Place(name, folder, (sys.executable, slurm_roots.__file__, "enter", name))


def test(name: str, marks: str, arguments: list[str]) -> Row:
    """Run the tests against one Slurm, and say what came of them.

    Raises:
        CannotMakeError: The root can't be made, or the tests could not even begin.
    """
    with folder_lock(slurm_roots.cache() / f"{name}.tests"):
        return _test(place(name), marks, arguments)


def _test(here: Place, marks: str, arguments: list[str]) -> Row:
    results = here.folder / RESULTS
    results.parent.mkdir(exist_ok=True)
    results.unlink(missing_ok=True)
    packages = ".venv/bin/python scripts/slurm_packages.py && " if marks == ALL else ""
    if marks == SMOKE:
        # To collect all tests would take as long as a part of them; none of these needs more packages.
        files = [
            file
            for file in CHECKOUT.glob("tests/*/test_*.py")
            if "pytest.mark.smoke" in file.read_text("utf-8")
        ]
        arguments = [*sorted(str(file.relative_to(CHECKOUT)) for file in files), *arguments]
    tests = ["-q", "-m", marks, "--ignore", "tests/test_house.py", f"--junitxml={RESULTS}", *arguments]
    workers = ["-n", os.environ.get("PYTEST_WORKERS", "4"), "--dist", "loadgroup"]
    script = f'make --silent .venv/dev.stamp && {packages}exec .venv/bin/python -m pytest "$@"'
    environment = {**os.environ, "DAGSTER_SLURM_REQUIRE_SLURM": "1"}
    subprocess.run(here.run(script, *tests, *workers), env=environment, stdin=subprocess.DEVNULL, check=False)
    if not results.exists():
        raise CannotMakeError(f"{here.name}: the tests could not begin; what is above says why")
    facts = subprocess.run(here.run(_FACTS), text=True, stdout=subprocess.PIPE, check=True).stdout
    return read(results, tuple(facts.splitlines()))


def read(results: Path, facts: tuple[str, ...]) -> Row:
    """Read what pytest wrote."""
    passed, failed, skipped = 0, [], Counter[str]()
    for case in ElementTree.parse(results).iter("testcase"):  # noqa: S314 -- our own pytest wrote it
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif skip is not None:
            skipped[skip.get("message", "")] += 1
        else:
            passed += 1
    return Row(facts, passed, tuple(failed), tuple(sorted(skipped.items())))


def main() -> int:
    """Test each Slurm that is named, and print the table of all."""
    words, arguments = sys.argv[1:], []
    if "--" in words:
        words, arguments = words[: words.index("--")], words[words.index("--") + 1 :]
    # What is running then, and all that it started, ends: `subprocess.run` sees to that.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    marks = SMOKE if "--smoke" in words else ALL
    names = [word for word in words if word != "--smoke"] or list(DEFAULT)
    unknown = [name for name in names if name not in (HERE, *ROOTS)]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join((HERE, *ROOTS))}", file=sys.stderr)
        return 2
    rows = []
    try:
        for name in names:
            rows.append(test(name, marks, arguments))
    except CannotMakeError as error:
        print(error, file=sys.stderr)
    print("| Slurm | system | Python | passed | failed | skipped |\n|---|---|---|---|---|---|")
    print(*rows, sep="\n")
    failed = [f"{row.facts[0]}: {test}" for row in rows for test in row.failed]
    print(*failed, sep="\n", file=sys.stderr)
    return 1 if failed or len(rows) < len(names) else 0


if __name__ == "__main__":
    sys.exit(main())
