"""The bundle: all files of a run directory as one archive, so that one call carries and submits them."""

import functools
import gzip
import io
import re
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from importlib.resources import files as resource_files
from pathlib import Path

import dagster_pipes

from dagster_slurm_components.errors import DagsterSlurmError
from dagster_slurm_components.jobs.model import JobSpec

_PACKAGE = resource_files(__package__.rpartition(".")[0])
PARTITION_KEYS = "partition_keys.txt"
"""The file of a run directory that holds all keys of a range of partitions, one a line."""
LEFT_RECORD = "left.json"
"""The file of a run directory that says what a left job makes, for whoever reports it."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

LARGEST_BUNDLE = 256 * 1024 * 1024
"""Bytes of files one bundle may hold: it travels in one message and is held in memory on both sides."""


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
def static_file(package: str, name: str) -> str:
    """Return the text of a shell file that this package ships, such as ``("jobs", "job.sh")``."""
    return (_PACKAGE / package / "shell" / name).read_text("utf-8")


@functools.cache
def _libraries() -> Mapping[str, bytes]:
    """Return what payloads can import: the installed ``dagster_pipes``, one file, and our helper beside it."""
    return {
        "lib/dagster_pipes.py": Path(dagster_pipes.__file__).read_bytes(),
        "lib/dagster_slurm_payload.py": (_PACKAGE / "payload.py").read_bytes(),
    }


def _members(spec: JobSpec, header: str) -> Iterator[tuple[str, bytes, bool]]:
    """Yield every file of the run directory: its path in it, its content, and whether it may be executed."""
    own: dict[str, str | bytes] = {
        "job.sh": header + static_file("jobs", "job.sh"),
        "launch.sh": spec.launch.script,
        "launch.args": spec.launch.arguments(),
        "activate.sh": static_file("environments", "activate.sh"),
        "activate.args": spec.activation.arguments(),
        **spec.activation.files,
        "context.json": spec.context,
        "job.env": env_file(spec.env),
        **({PARTITION_KEYS: "".join(f"{key}\n" for key in keys)} if (keys := spec.partition_keys) else {}),
        **({LEFT_RECORD: spec.left} if spec.left else {}),
        "messages.jsonl": b"",
        **_libraries(),
        **spec.launch.files,
    }
    for path, content in own.items():
        yield path, content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content, False
    for where, file in spec.files.items():
        yield f"payload/{where}", *_content(file)


def bundle(spec: JobSpec, header: str) -> bytes:
    """Return the run directory of a job as a gzipped tar; the same spec always gives the same bytes.

    The header stands above the body of ``job.sh``: the interpreter line and the ``#SBATCH`` lines.

    Raises:
        DagsterSlurmError: A file that can't be read, or more than ``LARGEST_BUNDLE`` bytes in all.
    """
    packed, total = io.BytesIO(), 0
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        folder = tarfile.TarInfo("payload")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for path, data, executable in _members(spec, header):
            total += len(data)
            if total > LARGEST_BUNDLE:
                raise DagsterSlurmError(
                    f"the job's files are larger than {LARGEST_BUNDLE // 2**20} MiB; {path} was too much",
                    hint="Put data into a folder on the host (a profile's `env` can name it) and keep `files` to code "
                    "and configuration.",
                )
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o700 if executable else 0o600
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _content(file: Path) -> tuple[bytes, bool]:
    try:
        return file.read_bytes(), bool(file.stat().st_mode & 0o100)
    except OSError as error:
        raise DagsterSlurmError(
            f"the file {file} can't be read: {error.strerror}", hint="It was to travel with the job."
        ) from error
