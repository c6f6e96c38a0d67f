"""What every part of the builder does with files and commands; on this machine files are hashed in the same way."""

import contextlib
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from dagster_slurm_components.hosts.satellite.protocol import Failure

Json = Dict[str, Any]
AnyPath = Union[str, Path]
CHUNK = 4 * 1024 * 1024
Env = Dict[str, str]
_TAIL = 4000
_SHOW = '. "$DAGSTER_SLURM_RUN_DIR/activate.sh" >&2 </dev/null; exec env -0'


class Problem(Failure):
    """What can't be done, with a line for each thing that is concerned."""

    def __init__(self, code: str, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(code, message)
        self.detail = list(detail)


def hash_of(path: AnyPath) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write(path: AnyPath, text: str) -> None:
    """Write a file, which our umask makes 0600."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to, which takes its place when the block succeeds."""
    descriptor, name = tempfile.mkstemp(prefix="new-", dir=str(target.parent))
    os.close(descriptor)
    try:
        yield Path(name)
        os.rename(name, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def size_of(folder: AnyPath) -> Tuple[int, int]:
    """Return bytes and inodes of a folder; a file that is also elsewhere (a hard link) counts here too."""
    total, count = 0, 1
    for where, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        total += sum(os.lstat(os.path.join(where, name)).st_size for name in files)
    return total, count


def plain_environment() -> Env:
    """Return our own variables, without those that would bend what a packer does."""
    bending = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA", "PIXI", "MAMBA", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(bending)}


def run(argv: List[str], env: Env, cwd: Optional[Path] = None) -> "subprocess.CompletedProcess[bytes]":
    """Run a command that reads nothing, and return the process, which has ended."""
    pipe = subprocess.PIPE
    return subprocess.run(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)


def execute(argv: List[str], env: Env, cwd: Optional[Path] = None) -> bytes:
    """Run a command and return what it printed; what it printed as errors is the message of its failure."""
    try:
        done = run(argv, env, cwd)
    except OSError as error:
        raise Problem("build_failed", "%s can't be run: %s" % (argv[0], error.strerror))
    if done.returncode != 0:
        words = tail(done.stderr) or tail(done.stdout) or "it said nothing"
        full = "No space left on device" in words or "quota exceeded" in words.lower()
        text = "%s ended with %d: %s" % (os.path.basename(argv[0]), done.returncode, words)
        raise Problem("disk_full" if full else "build_failed", text)
    return done.stdout


def activated(files: Dict[str, str]) -> Env:
    """Return the variables after the modules and shell files that the environment is made under."""
    env = plain_environment()
    if not files:
        return env
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            write(Path(folder, name), text)
        done = run(["bash", "-c", _SHOW], dict(env, DAGSTER_SLURM_RUN_DIR=folder))
    if done.returncode != 0:
        raise Problem("activation_failed", tail(done.stderr) or "the modules or setup files failed")
    entries = [os.fsdecode(entry).partition("=") for entry in done.stdout.split(b"\0")]
    return {name: value for name, _, value in entries if name not in ("", "DAGSTER_SLURM_RUN_DIR")}


def tail(output: bytes) -> str:
    """Return the end of what a command printed."""
    return output.decode("utf-8", "replace").strip()[-_TAIL:]
