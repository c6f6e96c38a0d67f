"""The bundle: all files of a run directory as one archive, so that one call carries and submits them."""

import functools
import gzip
import io
import json
import os
import re
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files as resource_files
from pathlib import Path

import dagster_pipes

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.hosts.program import shipped
from dagster_slurm_components.jobs.events import MESSAGES, NEWS
from dagster_slurm_components.jobs.model import ELEMENTS, JobArray, JobSpec
from dagster_slurm_components.jobs.outputs import collector
from dagster_slurm_components.jobs.status import STATUS
from dagster_slurm_components.jobs.usage import usage_file
from dagster_slurm_components.spec.files import LARGEST, TOO_LARGE
from dagster_slurm_components.spec.outputs import parts
from dagster_slurm_components.units import format_size

_PACKAGE = resource_files(__package__.rpartition(".")[0])
PARTITION_KEYS = "partition_keys.txt"
"""The file of a run directory that holds all keys of a range of partitions, one a line."""
EXTRAS = "extras.tsv"
"""The file of a run directory that holds the Pipes extras in lines, for payloads in languages without JSON."""
LEFT_RECORD = "left.json"
"""The file of a run directory that says what a left job makes, for whoever reports it."""
_POLLED = {MESSAGES: b"", STATUS: b""}
"""What whoever follows the job looks for is there from the start: an NFS client that once saw no file of a name
believes that for up to a minute."""
_OWN = ("context.json", "job.env", usage_file(0), *_POLLED)
"""The files that each element of an array has of its own, also in an array of one."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def env_file(env: Mapping[str, str]) -> str:
    """Return the content of ``job.env``: one quoted ``export`` a variable.

    Raises:
        DagsterSlurmError: A name that no shell can export, or a value with a NUL.
    """
    for name, value in env.items():
        if not _VARIABLE.match(name):
            raise DagsterSlurmError(
                f"{name!r} can't be the name of an environment variable",
                hint="Use letters, digits and underscores, not beginning with a digit.",
            )
        if "\0" in value:
            raise DagsterSlurmError(
                f"the value of the environment variable {name} holds a NUL character, which no process can receive"
            )
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


@functools.cache
def _libraries() -> Mapping[str, bytes]:
    """Return what payloads can import: the installed ``dagster_pipes``, one file, and our helpers beside it."""
    helpers = sorted((_PACKAGE / "jobs" / "lib").iterdir(), key=lambda file: file.name)
    return {
        "lib/dagster_pipes.py": Path(dagster_pipes.__file__).read_bytes(),
        "lib/dagster_slurm_payload.py": (_PACKAGE / "payload.py").read_bytes(),
        **{f"lib/{file.name}": file.read_bytes() for file in helpers},
    }


@functools.cache
def sampler() -> Mapping[str, bytes]:
    """Return the sampler, without which ``job.sh`` starts none, and the file that it writes to."""
    names = ("sample.sh", "sample.py", "counters.py", "gpus.py")
    programs = {f"sampler/{name}": shipped(f"jobs/sampler/{name}").encode() for name in names}
    return {**programs, usage_file(0): b""}


def _stager(stage: str | None) -> Mapping[str, str]:
    """Return the files that make a payload work on the node's own disk; none where it does not."""
    if stage is None:
        return {}
    words = (word for pair in parts(stage) for word in pair)
    return {"stage.sh": shipped("jobs/shell/stage.sh"), "stage.args": "".join(f"{word}\0" for word in words)}


def _extras(context: bytes) -> str:
    r"""Return the extras of a Pipes context as lines ``NAME<TAB>VALUE``, for languages that have no JSON.

    Text is written as it is, all else as JSON; tabs, ends of lines and backslashes as ``\t``, ``\n``, ``\r``, ``\\``.
    """
    extras = json.loads(context).get("extras") or {}
    escapes = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in extras.items()}
    return "".join(f"{name.translate(escapes)}\t{text.translate(escapes)}\n" for name, text in texts.items())


def _members(spec: JobSpec, header: str) -> Iterator[tuple[str, bytes | Path, bool]]:
    """Yield every file of the run directory: its path in it, its content, and whether it stays executable if it is."""
    files = run_files(spec)
    body, array = files.pop("job.sh"), spec.array
    if array is None:
        packed = _libraries()  # these stand before all else
        yield "job.sh", header.encode() + body, False
        yield from (
            (path, content, False) for path, content in files.items() if content is not packed.get(path)
        )
    else:
        # Elements link what all of them share. What `array.sh` runs in them is called as it is there.
        yield "job.sh", (header + shipped("jobs/shell/array.sh")).encode(), False
        yield NEWS, b"", False
        yield "tasks", "".join(f"{' '.join(map(str, task))}\n" for task in array.tasks).encode(), False
        own = next(iter(array.own.values()))
        shared = {"job.sh": body, **{path: files[path] for path in files if path not in own}}
        yield from ((f"common/{path}", content, False) for path, content in shared.items())
        for number, mine in array.own.items():
            yield from ((f"{ELEMENTS}/{number}/{path}", content, False) for path, content in mine.items())
    for where, file in spec.files.items():
        yield f"payload/{where}", file, True


def run_files(spec: JobSpec) -> dict[str, bytes]:
    """Return the content of each file of a run directory but for the payload's, by its path."""
    files: dict[str, str | bytes] = {
        "job.sh": shipped("jobs/shell/job.sh"),
        "launch.sh": spec.launch.script,
        "launch.args": spec.launch.arguments(),
        "activate.sh": shipped("environments/shell/activate.sh"),
        "activate.args": spec.activation.arguments(),
        **spec.activation.files,
        "context.json": spec.context,
        EXTRAS: _extras(spec.context),
        "job.env": env_file(spec.env),
        **({PARTITION_KEYS: "".join(f"{key}\n" for key in keys)} if (keys := spec.partition_keys) else {}),
        **({LEFT_RECORD: spec.left} if spec.left else {}),
        **_POLLED,
        **_libraries(),
        **(sampler() if spec.sampler else {}),
        **collector(spec.outputs),
        **_stager(spec.stage),
        **spec.launch.files,
    }
    return {
        path: text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        for path, text in files.items()
    }


def array_of(specs: Mapping[int, JobSpec], *, keys_per_task: int, max_parallel: int | None) -> JobSpec:
    """Return the job array of specs that differ in some of their files alone, by element."""
    files = {number: run_files(spec) for number, spec in specs.items()}
    first = next(iter(files.values()))
    same = {path for path in first if all(each[path] == first[path] for each in files.values())} - set(_OWN)
    own = {number: {path: each[path] for path in each if path not in same} for number, each in files.items()}
    return replace(next(iter(specs.values())), array=JobArray(own, keys_per_task, max_parallel))


@functools.cache
def _packed_libraries() -> bytes:
    """Return the beginning of an archive, compressed once: gzip files may stand one behind the other."""
    begin = io.BytesIO()
    archive = tarfile.open(fileobj=begin, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - its end follows
    for path, content in _libraries().items():
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(content), 0o600
        archive.addfile(info, io.BytesIO(content))
    return gzip.compress(begin.getvalue(), mtime=0)


def bundle(spec: JobSpec, header: str) -> bytes:
    """Return the run directory of a job as a gzipped tar; the same spec always gives the same bytes.

    The header stands above the body of ``job.sh``: the interpreter line and the ``#SBATCH`` lines.

    Raises:
        DagsterSlurmError: A file that can't be read, or more than ``LARGEST`` bytes in all.
    """
    packed, total = io.BytesIO(), 0
    packed.write(b"" if spec.array else _packed_libraries())
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        folder = tarfile.TarInfo("payload")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for path, data, executable in _members(spec, header):
            try:
                # A file goes straight into the archive: none is held in memory beside it.
                with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as content:
                    info = tarfile.TarInfo(path)
                    info.size = content.seek(0, os.SEEK_END)
                    content.seek(0)
                    total += info.size
                    if total > LARGEST:
                        text = f"the job's files are larger than {format_size(LARGEST)}; {path} was too much"
                        raise DagsterSlurmError(text, hint=TOO_LARGE)
                    mode = os.fstat(content.fileno()).st_mode if executable else 0
                    info.mode = 0o700 if mode & 0o100 else 0o600
                    archive.addfile(info, content)
            except OSError as error:
                text = f"the file {data!s} can't be read: {error.strerror or error}"
                raise DagsterSlurmError(text, hint="It was to travel with the job.") from error
    return packed.getvalue()
