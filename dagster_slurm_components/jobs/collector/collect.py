"""Looks for what a payload was to make, hashes and publishes it, and writes down what there is.

Usage: collect.py, in the run directory, after a payload that ended with 0. ``outputs.json`` there says what is wanted,
``outputs.env`` has the payload's umask and variables; the answer is ``made.json``, and ``made.files`` with a line for
each file where those are more than the answer lists. Standard library only, Python 3.6.
"""

import hashlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, List, Optional, Tuple

from found import Found, raw, text_of
from publish import PublishError, publish, target_of

LISTED = 1000
"""Files that the answer lists."""
MOST_HASHED = 64 * 2**30
MOST_NOTES = 20
PATIENCE = 65.0
"""Seconds for which NFS may not show a folder's new files that another node of the job has made (`acdirmax`)."""
PIECE = 4 * 2**20
FAILED = 94
"""The job's exit code where something is missing or could not be published."""

File = Tuple[str, int, Optional[str]]
"""A file's name below its output's folder, its bytes and its hash."""
Hashed = Tuple[Optional[str], int, Optional[str]]
"""A file's hash, its bytes, and what is to be told of it, if anything."""


def look_for(wanted: "List[Dict[str, Any]]", patience: float) -> List[Found]:
    """Look for all outputs, and for those that are missing for so many seconds."""
    until = time.monotonic() + patience
    while True:
        found = [Found(b"payload", each["path"]) for each in wanted]
        lacking = any(not its.files and not each["optional"] for each, its in zip(wanted, found))
        if not lacking or time.monotonic() >= until:
            return found
        time.sleep(1)


def hash_of(path: bytes) -> Hashed:
    """Hash a file, and see that it is the same before and after."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0) as file:
            before, digest, size = os.fstat(file.fileno()), hashlib.sha256(), 0
            piece = file.read(PIECE)
            while piece:
                size += len(piece)
                digest.update(piece)
                piece = file.read(PIECE)
            after = os.fstat(file.fileno())
    except OSError as error:
        return None, 0, f"can't be read: {error.strerror}"
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or size != after.st_size:
        return None, after.st_size, "changed while it was hashed"
    return digest.hexdigest(), size, None


def hashes(paths: Iterable[bytes]) -> Dict[bytes, Hashed]:
    """Hash files, several at a time, and each once; beyond a total none is read."""
    answers, chosen, total = {}, [], 0  # type: Dict[bytes, Hashed], List[bytes], int
    for path in sorted(set(paths)):
        size = os.stat(path).st_size
        total += size
        if total <= MOST_HASHED:
            chosen.append(path)
        else:
            answers[path] = None, size, f"is not hashed: the outputs have more than {MOST_HASHED >> 30} GiB"
    # Hashing lets other threads run. Of the job's CPUs, where the system tells which these are.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with ThreadPoolExecutor(min(8, cores)) as pool:
        answers.update(zip(chosen, pool.map(hash_of, chosen)))
    return answers


def tree_hash(files: List[File]) -> Optional[str]:
    """Return the hash over sorted names and hashes, or None where a hash is missing."""
    if not files or any(digest is None for _, _, digest in files):
        return None
    lines = (raw(f"{name}\0{digest}\n") for name, _, digest in sorted(files))
    return hashlib.sha256(b"".join(lines)).hexdigest()


class Made:
    """One output: what is told of it, and all its files."""

    def __init__(self, wanted: "Dict[str, Any]", found: Found, known: "Dict[bytes, Hashed]") -> None:
        self.found = found
        self.files = []  # type: List[File]
        notes = list(found.notes)
        for name in sorted(found.files):
            digest, size, note = known[found.files[name]]
            self.files.append((name, size, digest))
            if note:
                notes.append(f"{name} {note}")
        more = len(notes) - MOST_NOTES
        self.told = dict(wanted, single=found.single, count=len(self.files), hash=tree_hash(self.files))
        self.told["root"] = text_of(os.path.relpath(found.base, os.path.realpath(b".")))
        self.told["bytes"] = sum(size for _, size, _ in self.files)
        self.told["notes"] = notes[:MOST_NOTES] + ([f"and {more} more"] if more > 0 else [])
        self.told["error"] = None if self.files or wanted["optional"] else "nothing is there"
        self.told["published"] = False

    def publish(self, variables: "Dict[str, str]") -> None:
        """Bring it to its target, if it has one."""
        if not (self.told["to"] and self.files):
            return
        try:
            target = target_of(raw(self.told["to"]), variables)
            publish(self.found.files, target, self.found.single, name=self.told["name"], base=self.found.base)
        except (PublishError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.told["error"] = f"it could not be published to {self.told['to']}: {why}"
            return
        folder, name = os.path.split(target)
        if self.found.single:  # it has the target's name by now
            self.files = [(text_of(name), self.files[0][1], self.files[0][2])]
            self.told["hash"] = tree_hash(self.files)
        self.told.update(root=text_of(folder if self.found.single else target), published=True)


def read_environment() -> Tuple[int, Dict[str, str]]:
    """Return the payload's umask, and the variables that targets name."""
    with open("outputs.env", "rb") as file:
        mask, *entries = file.read().split(b"\0")
    pairs = (entry.partition(b"=") for entry in entries if entry)
    return int(mask, 8), {text_of(name): text_of(value) for name, _, value in pairs}


def write(path: str, text: str) -> None:
    """Write a file whole or not at all, for this user alone."""
    temporary = path + ".tmp"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text.encode("ascii"))
    os.rename(temporary, path)


def tell(outputs: List[Made]) -> None:
    """Write down what there is."""
    left = LISTED
    for each in outputs:
        each.told["files"] = each.files[:left]
        left -= len(each.told["files"])
    if left <= 0:
        lines = (json.dumps([each.told["name"], *row]) + "\n" for each in outputs for row in each.files)
        write("made.files", "".join(lines))
    write("made.json", json.dumps({"outputs": [each.told for each in outputs]}))


def main() -> int:
    """Return the exit code."""
    with open("outputs.json", "rb") as file:
        wanted = json.loads(file.read().decode("ascii"))
    found = look_for(wanted, PATIENCE if int(os.environ.get("SLURM_JOB_NUM_NODES") or 1) > 1 else 0.0)
    known = hashes(path for each in found for path in each.files.values())
    outputs = [Made(each, its, known) for each, its in zip(wanted, found)]
    if not any(each.told["error"] for each in outputs):  # half of what was to be made helps nobody
        mask, variables = read_environment()
        before = os.umask(mask)
        for each in outputs:
            each.publish(variables)
        os.umask(before)
    tell(outputs)
    for each in outputs:
        for line in filter(None, [each.told["error"], *each.told["notes"]]):
            sys.stderr.write(f"output {each.told['name']}: {ascii(line)[1:-1]}\n")
    return FAILED if any(each.told["error"] for each in outputs) else 0


if __name__ == "__main__":
    sys.exit(main())
