"""What a payload made of what it was to make: ``made.json``, which ``jobs/collector/collect.py`` writes in the job."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from dagster_slurm_components.errors import printable
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.jobs.model import ELEMENTS, JobHandle
from dagster_slurm_components.spec.outputs import variables

MADE, ALL_FILES = "made.json", "made.files"
"""The files of a run directory that tell of the outputs, and of each file where those are very many."""
FAILED, UNCHECKED = "failed", "unchecked"
"""What ``outputs`` in a status file may be, beside ``made``."""
PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
_TEXTS = (".md", ".markdown")
_PREVIEWED = 2**20
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
"""What an output may be called."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of an output: its name below the output's ``root``; the hash where there is one."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Made:
    """One output.

    Attributes:
        pattern: What it was looked for by.
        root: The folder that its files lie in: the published one, or one in the run directory.
        single: Whether it is one file that was named, and no folder.
        count: How many files it has; ``files`` may be fewer.
        hash: SHA-256 over the names and hashes of its files, where all of these are known.
        error: What is wrong with it, if the job failed by that; ``notes`` tell what else is worth knowing.
        where: The line that declares it.
        asset: The one asset whose metadata tell of it.
        pull: Whether the step brings it to Dagster's machine, if it has no more than ``most`` bytes.
    """

    name: str
    pattern: str
    root: str
    single: bool
    count: int
    bytes: int
    hash: str | None
    files: tuple[File, ...]
    published: bool = False
    error: str | None = None
    notes: tuple[str, ...] = ()
    where: str = ""
    asset: str | None = None
    pull: bool = False
    most: int | None = None

    @property
    def path(self) -> str:
        """Where it lies on the host."""
        return self.file(self.files[0].name) if self.single and self.files else self.root

    def file(self, name: str) -> str:
        """Return where one of its files lies."""
        return f"{self.root}/{name}"


def collector(outputs: Sequence[Mapping[str, Any]]) -> Mapping[str, str | bytes]:
    """Return the files that make a job look for its outputs; none where it has none."""
    if not outputs:
        return {}
    programs = [f"jobs/collector/{name}" for name in ("collect.sh", "collect.py", "publish.py")]
    programs.append("hosts/satellite/found.py")
    names = sorted(set().union(*(variables(output["to"]) for output in outputs)))
    return {
        **{f"collector/{path.rpartition('/')[2]}": shipped(path) for path in programs},
        "outputs.json": json.dumps(outputs),
        "outputs.names": "".join(f"{name}\n" for name in names),
    }


def parse_made(data: bytes, run_dir: str) -> tuple[Made, ...]:
    """Return the outputs that a job in a run directory has told of; none where it has not.

    Example:
        >>> parse_made(b'{"outputs": [', "/scratch/runs/1")
        ()
    """
    try:
        return tuple(_made(each, run_dir) for each in json.loads(data)["outputs"])
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ):  # none, or damaged
        return ()


def _made(raw: Mapping[str, Any], run_dir: str) -> Made:
    pull = raw.get("pull")
    if not NAME.fullmatch(raw["name"]):
        raise ValueError(raw["name"])
    return Made(
        name=raw["name"],
        pattern=shown(raw["path"]),
        root=str(PurePosixPath(run_dir, raw["root"])),
        single=bool(raw["single"]),
        count=int(raw["count"]),
        bytes=int(raw["bytes"]),
        hash=None if raw["hash"] is None else str(raw["hash"]),
        files=tuple(parse_file(*row) for row in raw["files"]),
        published=bool(raw["published"]),
        error=None if raw["error"] is None else shown(raw["error"]),
        notes=tuple(map(shown, raw["notes"])),
        where=str(raw["where"]),
        asset=None if raw["asset"] is None else str(raw["asset"]),
        pull=pull is not None,
        most=None if pull is None or pull["most"] is None else int(pull["most"]),
    )


def parse_files(made: Sequence[Made], data: bytes) -> tuple[Made, ...]:
    """Return outputs with all of their files, by the file that lists them."""
    files: dict[str, list[File]] = {each.name: [] for each in made}
    for line in data.splitlines():
        name, *row = json.loads(line)
        files[name].append(parse_file(*row))
    return tuple(replace(each, files=tuple(files[each.name])) for each in made)


def parse_file(name: str, size: int, sha256: str | None) -> File:
    """Return a file as it is told of; raises ValueError for a name that leads elsewhere."""
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise ValueError(f"{name!r} is no name of a file below a folder")
    return File(name, int(size), sha256)


def tree_hash(files: Iterable[tuple[str, str]]) -> str:
    """Return the hash over names and hashes of files, as the collector takes it."""
    lines = (f"{name}\0{digest}\n".encode("utf-8", "surrogateescape") for name, digest in sorted(files))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def shown(text: str) -> str:
    r"""Return a name from a host as one line that any database and terminal takes.

    >>> shown("a\nb\udcff")
    'a b\ufffd'
    """
    plain = printable(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join(re.split(r"[\x00-\x1f\x7f\x85\u2028\u2029]", plain))


def named(handle: JobHandle) -> JobHandle:
    """Return a job with the id by which a person names it: that of an element of an array is its own."""
    array, _, number = handle.run_dir.rpartition(f"/{ELEMENTS}/")
    if not array:
        return handle
    return JobHandle(f"{handle.job_id.partition('_')[0]}_{number}", handle.run_dir)


def failure_of(made: Sequence[Made]) -> str:
    """Return what is told of outputs that are not there, or not where they should be."""
    if not made:
        return "The last lines of its stderr say which, and why."
    lines = []
    for each in made:
        if each.error:
            declared = f", declared at {each.where}" if each.where else ""
            told = [f"Output `{each.name}` (`{each.pattern}`{declared}): {each.error}"]
            told.append(
                f"what the payload made is {shown(each.path)}" if each.count else f"looked for in {each.root}"
            )
            lines.append("; ".join([*told, *each.notes]) + ".")
    return "\n".join([*lines, "All that the payload made is still there."])


def to_preview(made: Sequence[Made]) -> list[tuple[Made, File]]:
    """Return the small pictures and Markdown files that can be shown, of each output so much as is no burden."""
    chosen = []
    for each in made:
        left = _PREVIEWED
        for file in each.files:
            if PurePosixPath(file.name).suffix.lower() in (*PICTURES, *_TEXTS) and file.size <= left:
                chosen.append((each, file))
                left -= file.size
    return chosen
