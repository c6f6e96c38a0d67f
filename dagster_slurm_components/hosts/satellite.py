# ruff: noqa: B905, N818, PLR0917, UP006, UP035, UP037, UP045
"""The one file that runs on a host and does everything there. Standard library only, Python 3.6 or newer.

Over a connection this file is sent as text, answers requests on its standard input and output, and ends when
its input closes (``main``). For the local host the same functions run in-process (``handle``); therefore only
``main`` touches the process's own environment, working folder, umask and standard streams.

It is one file of many lines on purpose: what is read here is, byte for byte and line for line, what runs there, and
there is nothing to join before it is sent or to import where it arrives. Its parts are marked by ruled comments:
protocol, files, commands, processes, submission, places, serving.

Paths and arguments come as JSON text and are used as bytes (UTF-8, undecodable bytes as surrogates): the file
system encoding of an old Python in the C locale must not decide what a file is called.

Times are seconds; points in time are epochs of this machine's clock. Files are made 0600 and folders 0700.
"""

import base64
import concurrent.futures
import contextlib
import errno
import fcntl
import inspect
import io
import json
import os
import platform
import pwd
import re
import selectors
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

VERSION = 1
"""Of the protocol and of the operations together: both ends are always the same file."""

Result = Dict[str, Any]


class Failure(Exception):
    """The request can't be done; ``code`` is a short stable word for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# ------------------------------------------------------------------------------------------------- PROTOCOL
# One frame: header length and blob length (4 bytes each, big-endian), a JSON header, raw bytes.
# Request  {"id": 1, "op": "read", "params": {...}}
# Reply    {"id": 1, "ok": true, "result": {...}} or {"id": 1, "ok": false, "code": "...", "error": "..."}

MAX_HEADER = 32 * 1024 * 1024
MAX_BLOB = 512 * 1024 * 1024
_LENGTHS = struct.Struct(">II")
_CHUNK = 1024 * 1024

READY = b"\0dagster-slurm satellite ready\0\n"
"""Said before the first frame. Login shells may print banners before it."""

BOOTSTRAP = (
    "import sys;"
    'sys.version_info<(3,6)and sys.exit("needs Python 3.6 or newer, this is "+sys.version.split()[0]);'
    'exec(compile(sys.stdin.buffer.read(int(sys.argv[1])),"satellite.py","exec"),{"__name__":"__main__"})'
)
"""For ``python3 -c BOOTSTRAP LENGTH``: reads this file from standard input and runs it.

Free of quotes ``'``, backslashes, ``!``, ``$`` and newlines: in single quotes it means the same to sh, bash,
csh and fish.
"""


class FrameError(Exception):
    """The stream does not carry frames (any more)."""


def encode_frame(header: Result, blob: bytes = b"") -> bytes:
    """Return one frame; raises FrameError when it is larger than the other side accepts."""
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    _check_lengths(len(text), len(blob))
    return _LENGTHS.pack(len(text), len(blob)) + text + blob


def read_frame(read: Callable[[int], bytes]) -> Optional[Tuple[Result, bytes]]:
    """Return the next frame's header and blob, or None at the stream's end.

    Args:
        read: Returns at most that many bytes, and none only at the end.
    """
    lengths = _read_exactly(read, _LENGTHS.size, at_boundary=True)
    if not lengths:
        return None
    header_length, blob_length = _LENGTHS.unpack(lengths)
    _check_lengths(header_length, blob_length)
    text = _read_exactly(read, header_length)
    try:
        header = json.loads(text.decode("ascii"))
    except ValueError as error:
        raise FrameError(f"a frame's header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FrameError("a frame's header is not a JSON object")
    return header, _read_exactly(read, blob_length)


def _check_lengths(header: int, blob: int) -> None:
    if header > MAX_HEADER or blob > MAX_BLOB:
        raise FrameError(
            f"a frame of {header} + {blob} bytes is over the limits of {MAX_HEADER} + {MAX_BLOB}: "
            "either too much was asked for, or the stream is corrupt"
        )


def _read_exactly(read: Callable[[int], bytes], size: int, at_boundary: bool = False) -> bytes:
    # In pieces, so that a corrupt length costs no more memory than the data that really comes.
    pieces: List[bytes] = []
    missing = size
    while missing:
        piece = read(min(missing, _CHUNK))
        if not piece:
            if at_boundary and missing == size:
                return b""
            raise FrameError(f"the stream ended inside a frame ({missing} of {size} bytes missing)")
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def native(text: str) -> bytes:
    """Return a path or an argument as the bytes the system takes."""
    if not isinstance(text, str):
        raise Failure("bad_request", f"expected text, got {text!r}")
    if "\0" in text:
        raise Failure("bad_request", f"a NUL byte in {text!r}")
    return text.encode("utf-8", "surrogateescape")


def as_text(data: bytes) -> str:
    """Return bytes as JSON text, so that ``native`` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------------------------------------------- FILES


def make_folder(path: bytes) -> None:
    """Make a folder and its missing parents, 0700 (os.makedirs gives parents the umask's mode)."""
    try:
        _make_one_folder(path)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent == path:
            raise
        make_folder(parent)
        # Once, for some file systems (/proc) say so even when the parent is there.
        _make_one_folder(path)


def _make_one_folder(path: bytes) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def temporary_name(path: bytes) -> bytes:
    """Return a name beside ``path`` that nobody else uses."""
    return path + b".tmp-" + base64.b16encode(os.urandom(8)).lower()


def write_atomically(path: bytes, data: bytes, mode: int = 0o600) -> None:
    """Publish a file whole or not at all."""
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            write_all(descriptor, data)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove_tree(path: bytes) -> None:
    """Remove a file, a link (not what it points to) or a folder; nothing there is fine."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        # Packages and payloads may leave folders without write permission.
        os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):
            for name in names:
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
        shutil.rmtree(path)


_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
STALE_LOCK = 900.0
"""Seconds after which a folder lock taken on another machine counts as abandoned; no call lasts that long."""


def acquire(path: bytes) -> Optional[Callable[[], None]]:
    """Take the lock file at ``path`` now; return what releases it, or None while somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_FLOCK:  # Lustre mounted without -o flock, some NFS
            return _acquire_folder(path + b".d")
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return None
        raise
    return lambda: os.close(descriptor)


def _acquire_folder(path: bytes) -> Optional[Callable[[], None]]:
    # A folder that holds its owner's name is prepared aside and renamed into place: renaming onto a folder
    # that is not empty fails everywhere, so the lock and the knowledge of its owner appear in one step.
    token = base64.b16encode(os.urandom(8)).decode().lower()
    prepared = path + b"." + token.encode()
    pid = os.getpid()
    owner = {"token": token, "node": os.uname().nodename, "pid": pid, "start": identify([pid]).get(pid)}
    os.mkdir(prepared, 0o700)
    write_atomically(os.path.join(prepared, b"owner"), json.dumps(owner).encode())
    if not _rename_new(prepared, path):
        _break_abandoned(path)
        if not _rename_new(prepared, path):
            shutil.rmtree(prepared)
            return None

    def release() -> None:
        if _lock_owner(path).get("token") == token:  # else it was taken for abandoned
            os.rename(path, prepared)
            shutil.rmtree(prepared)

    return release


def _lock_owner(path: bytes) -> Result:
    try:
        with open(os.path.join(path, b"owner"), "rb") as file:
            owner: Result = json.loads(file.read().decode())
            return owner
    except FileNotFoundError:
        return {}


def _rename_new(source: bytes, target: bytes) -> bool:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _break_abandoned(path: bytes) -> None:
    owner = _lock_owner(path)
    with contextlib.suppress(FileNotFoundError, KeyError):  # released meanwhile
        if owner["node"] == os.uname().nodename:
            abandoned = identify([owner["pid"]]).get(owner["pid"]) != owner["start"]
        else:
            abandoned = time.time() - os.stat(path).st_mtime > STALE_LOCK
        if abandoned:
            # Named after the owner and kept: a second breaker that saw the same owner finds the name taken,
            # and can't move away the lock that the first breaker has taken since.
            _rename_new(path, path + b".abandoned-" + owner["token"].encode())


@contextlib.contextmanager
def locked(path: bytes, timeout: float) -> Iterator[None]:
    """Hold the lock file at ``path``."""
    deadline = time.monotonic() + timeout
    release = acquire(path)
    while release is None:
        if time.monotonic() > deadline:
            raise Failure("locked", f"{as_text(path)} stayed locked for {timeout:g} s")
        time.sleep(0.05)
        release = acquire(path)
    try:
        yield
    finally:
        release()


def read(blob: bytes, files: Sequence[Sequence[Any]], total: int = 16 * 1024 * 1024) -> Tuple[Result, bytes]:
    """Read many files from offsets; what a file lacks or refuses is its own status, never the call's error.

    Args:
        blob: Not used.
        files: ``[path, offset, limit]`` each.
        total: Most bytes of the answer. Shared fairly (``fair_shares``): one endless log can't starve another
            job's messages.

    Returns:
        ``files``: ``[status, size, inode, mtime, n]`` each, with ``n`` bytes in the blob, in order. The
        status is ``ok``, ``missing`` or the reason.
    """
    if total < len(files):
        raise Failure("bad_request", f"a total of {total} bytes is too little for {len(files)} files")
    paths = [native(path) for path, _, _ in files]
    rows = [_look(path) for path in paths]
    wishes = [
        max(0, min(int(limit), row[1] - int(offset))) if row[0] == "ok" else 0
        for row, (_, offset, limit) in zip(rows, files)
    ]
    pieces: List[bytes] = []
    for number, share in enumerate(fair_shares(wishes, total)):
        data = b""
        if share:
            rows[number], data = _read_piece(paths[number], int(files[number][1]), share)
        rows[number].append(len(data))
        pieces.append(data)
    return {"files": rows}, b"".join(pieces)


def fair_shares(wishes: Sequence[int], total: int) -> List[int]:
    """Divide ``total`` equally, but give nobody more than wished: what is left over goes to the others."""
    shares = [0] * len(wishes)
    left = total
    order = sorted(range(len(wishes)), key=lambda number: wishes[number])
    for position, number in enumerate(order):
        shares[number] = min(wishes[number], left // (len(order) - position))
        left -= shares[number]
    return shares


def _open_regular(path: bytes) -> Tuple[int, os.stat_result]:
    # Opened, not only stat'ed: opening is what makes an NFS client ask the server again. Not waiting for a
    # writer, should a named pipe lie there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor, found


def _look(path: bytes) -> List[Any]:
    try:
        descriptor, found = _open_regular(path)
    except OSError as error:
        return [_read_status(error), 0, 0, 0.0]
    os.close(descriptor)
    return ["ok", found.st_size, found.st_ino, found.st_mtime]


def _read_piece(path: bytes, offset: int, size: int) -> Tuple[List[Any], bytes]:
    try:
        descriptor, found = _open_regular(path)
        try:
            data = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        return [_read_status(error), 0, 0, 0.0], b""
    return ["ok", found.st_size, found.st_ino, found.st_mtime], data


def _read_status(error: OSError) -> str:
    return "missing" if error.errno in (errno.ENOENT, errno.ENOTDIR) else str(error.strerror)


def put(blob: bytes, path: str, mode: int = 0o600, append_at: Optional[int] = None) -> Tuple[Result, bytes]:
    """Write a file: whole and by rename, or, with ``append_at``, this piece at that length.

    Appending cuts the file at ``append_at`` first, so that a piece sent twice is there once. A file shorter
    than ``append_at`` is the failure ``gap``.
    """
    target = native(path)
    if append_at is None:
        write_atomically(target, blob, mode)
        return {"size": len(blob)}, b""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, mode)
    try:
        size = os.fstat(descriptor).st_size
        if size < append_at:
            raise Failure("gap", f"{path} has {size} bytes, the piece starts at {append_at}")
        os.ftruncate(descriptor, append_at)
        os.lseek(descriptor, append_at, os.SEEK_SET)
        write_all(descriptor, blob)
    finally:
        os.close(descriptor)
    return {"size": append_at + len(blob)}, b""


def mkdir(blob: bytes, path: str) -> Tuple[Result, bytes]:
    """Make a folder and its missing parents, 0700."""
    make_folder(native(path))
    return {}, b""


def remove(blob: bytes, root: str, paths: Sequence[str]) -> Tuple[Result, bytes]:
    """Remove files and folders strictly below ``root``; one path elsewhere refuses the whole call."""
    top = os.path.realpath(native(root))
    targets = []
    for path in paths:
        parent, name = os.path.split(os.path.join(top, native(path)).rstrip(b"/"))
        target = os.path.join(os.path.realpath(parent), name)
        if top == b"/" or name in (b"", b".", b"..") or not target.startswith(top + b"/"):
            raise Failure("outside", f"{path} is not below {root}: nothing was removed")
        targets.append(target)
    for target in targets:
        remove_tree(target)
    return {}, b""


def disk(blob: bytes, path: str) -> Tuple[Result, bytes]:
    """Return the bytes and inodes of the file system at ``path``."""
    found = os.statvfs(native(path))
    return {
        "total": found.f_blocks * found.f_frsize,
        "available": found.f_bavail * found.f_frsize,
        "inodes": found.f_files,
        "inodes_available": found.f_favail,
    }, b""


# -------------------------------------------------------------------------------------------------- COMMANDS

OUTPUT_CAP = 8 * 1024 * 1024
SNAPSHOT_CAP = 128 * 1024 * 1024

Environment = Dict[bytes, bytes]

_LOGIN_SHELL = r"""printf '\0login\0%s\0%s\0%s\0' "$PATH" "$SLURM_CONF" "$LD_LIBRARY_PATH" """
_LOGIN_NAMES = (b"PATH", b"SLURM_CONF", b"LD_LIBRARY_PATH")
_login_lock = threading.Lock()
_login_found: List[Environment] = []


class Completed(NamedTuple):
    """A command that ended; ``truncated`` when it printed more than was kept."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    truncated: bool


def command_environment() -> Environment:
    """Return the environment for the host's own commands: no user option of Slurm, no translated message.

    Slurm's programs take options from variables, and ``SBATCH_*`` even beats a job script's own lines. What says
    where the cluster is stays; times are printed as seconds since 1970.
    """
    environment = job_environment()
    for name in (b"SLURM_CONF", b"SLURM_JWT", b"SLURM_JWT_PATH"):
        if name in os.environb:
            environment[name] = os.environb[name]
    environment.update({b"LC_ALL": b"C", b"SLURM_TIME_FORMAT": b"%s"})
    return environment


def job_environment() -> Environment:
    """Return the environment for a job that is a plain process: nothing hints that it is in Slurm."""
    slurm = re.compile(rb"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO)_")
    return {name: value for name, value in os.environb.items() if not slurm.match(name)}


def locate(argv: Sequence[bytes]) -> Tuple[List[bytes], Environment]:
    """Return argv with its program found, and the environment to run it in.

    Many sites put Slurm on PATH in /etc/profile.d alone, which a command over ssh never reads: what is not on
    PATH is looked for once more on the login shell's.
    """
    if not argv or not argv[0]:
        raise Failure("bad_request", "an empty command")
    environment = command_environment()
    if b"/" in argv[0]:
        if os.path.isabs(argv[0]) and not _executable(argv[0]):
            raise Failure("no_such_program", f"{as_text(argv[0])} is not an executable file")
        return list(argv), environment
    program = _find(argv[0], environment.get(b"PATH", os.defpath.encode()))
    if program is None:
        environment.update(login_environment())
        program = _find(argv[0], environment.get(b"PATH", b""))
    if program is None:
        raise Failure(
            "no_such_program",
            "{} is neither on PATH ({}) nor on the login shell's ({})".format(
                as_text(argv[0]), os.environ.get("PATH", ""), as_text(environment.get(b"PATH", b""))
            ),
        )
    return [program, *argv[1:]], environment


def _find(name: bytes, path: bytes) -> Optional[bytes]:
    for folder in path.split(b":"):
        candidate = os.path.join(folder or b".", name)
        if _executable(candidate):
            return candidate
    return None


def _executable(path: bytes) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def login_environment() -> Environment:
    """Return what the login shell would set of PATH, SLURM_CONF and LD_LIBRARY_PATH; asked once."""
    with _login_lock:
        if not _login_found:
            completed = execute([b"bash", b"-lc", _LOGIN_SHELL.encode()], command_environment(), timeout=10)
            _, marker, said = completed.stdout.rpartition(b"\0login\0")
            values = said.split(b"\0") if marker else []
            _login_found.append({name: value for name, value in zip(_LOGIN_NAMES, values) if value})
        return _login_found[0]


def execute(
    argv: Sequence[bytes],
    environment: Environment,
    cwd: Optional[bytes] = None,
    stdin: bytes = b"",
    timeout: float = 60.0,
    cap: int = OUTPUT_CAP,
) -> Completed:
    """Run a command in its own process group; at the timeout the whole group is killed.

    Its umask is 077: sbatch hands its own umask on to the job.
    """
    process: Any = subprocess.Popen(
        [b"/bin/sh", b"-c", b'umask 077; exec "$@"', b"sh", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment,
        start_new_session=True,
    )
    with process:
        deadline = time.monotonic() + timeout
        outputs, truncated = _converse(process, stdin, deadline, cap)
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Completed(process.returncode, outputs[0], outputs[1], True, truncated)
    return Completed(process.returncode, outputs[0], outputs[1], False, truncated)


_AFTER_EXIT = 0.5
"""Seconds to listen to a pipe after the command's end: a daemon that it started may hold it open for ever."""


def _converse(process: Any, stdin: bytes, deadline: float, cap: int) -> Tuple[List[bytes], bool]:
    outputs = [bytearray(), bytearray()]
    truncated = False
    pending = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ, outputs[0])
        selector.register(process.stderr, selectors.EVENT_READ, outputs[1])
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(min(0.1, max(0.0, deadline - time.monotonic()))):
                if key.data is None:
                    pending = _feed(key.fd, pending)
                    if not pending:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                room = cap - len(key.data)
                key.data.extend(piece[:room])
                truncated = truncated or len(piece) > room
            if process.poll() is not None:
                deadline = min(deadline, time.monotonic() + _AFTER_EXIT)
    return [bytes(output) for output in outputs], truncated


def _feed(descriptor: int, pending: memoryview) -> memoryview:
    try:
        return pending[os.write(descriptor, pending[:65536]) :]
    except BrokenPipeError:  # a command need not read its input
        return pending[:0]


def run(
    blob: bytes,
    argv: Sequence[str],
    cwd: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    command_timeout: float = 60.0,
    budget: Optional[Result] = None,
) -> Tuple[Result, bytes]:
    """Run a command with the blob as its input; with a ``budget`` (``spend``) only if that allows it.

    Returns:
        ``returncode``, ``timed_out``, ``truncated``, and the lengths ``stdout`` and ``stderr`` of what lies
        one after the other in the blob.
    """
    spend(budget)
    command, environment = locate([native(word) for word in argv])
    environment.update({native(name): native(value) for name, value in (env or {}).items()})
    done = execute(command, environment, None if cwd is None else native(cwd), blob, command_timeout)
    return {
        "returncode": done.returncode,
        "timed_out": done.timed_out,
        "truncated": done.truncated,
        "stdout": len(done.stdout),
        "stderr": len(done.stderr),
    }, done.stdout + done.stderr


def spend(budget: Optional[Result]) -> None:
    """Take one query from a budget; fail with ``over_budget`` when it is used up.

    A token bucket in a file: whoever names the same file, in any process on any machine, shares it.

    Args:
        budget: ``path``, ``per_minute`` (queries that refill it) and ``burst`` (the most it holds; it begins
            full), or nothing.
    """
    if budget is None:
        return
    path, burst = native(budget["path"]), float(budget["burst"])
    make_folder(os.path.dirname(path))
    with locked(path + b".lock", 10.0):
        now = time.time()
        tokens, filled = burst, now
        with contextlib.suppress(FileNotFoundError, ValueError), open(path, "rb") as file:
            tokens, filled = json.loads(file.read().decode("ascii"))
        # max(): a clock that was set back refills nothing.
        tokens = min(burst, tokens + max(0.0, now - filled) * float(budget["per_minute"]) / 60.0)
        granted = tokens >= 1.0
        write_atomically(path, json.dumps([tokens - granted, now]).encode("ascii"))
    if not granted:
        raise Failure("over_budget", f"the budget of Slurm queries in {budget['path']} is used up for now")


def snapshot(
    blob: bytes,
    path: str,
    argv: Sequence[str],
    max_age: float,
    query_timeout: float,
    budget: Optional[Result] = None,
) -> Tuple[Result, bytes]:
    """Run a query unless the file at ``path`` holds a younger answer to it; share the answer there.

    A query that is run counts against the ``budget`` (``spend``), a shared answer does not.

    All processes on all machines that name the same file share one answer. Failures are shared as well: a
    broken controller must not be asked again by everyone in turn.

    Returns:
        ``returncode``, ``stdout``, ``stderr``, ``timed_out``, ``taken`` (epoch) and ``fresh`` (this call made
        it).
    """
    target = native(path)
    make_folder(os.path.dirname(target))
    deadline = time.monotonic() + query_timeout
    while True:
        stored = _stored_snapshot(target, argv, max_age)
        if stored is not None:
            return dict(stored, fresh=False), b""
        release = acquire(target + b".lock")
        if release is not None:
            try:
                # Asked again under the lock: the holder before us may have published just now.
                stored = _stored_snapshot(target, argv, max_age)
                if stored is not None:
                    return dict(stored, fresh=False), b""
                spend(budget)
                return dict(_take_snapshot(target, argv, query_timeout), fresh=True), b""
            finally:
                release()
        if time.monotonic() > deadline:
            raise Failure("locked", f"somebody else's query for {path} did not end in {query_timeout:g} s")
        time.sleep(0.02)


def _stored_snapshot(path: bytes, argv: Sequence[str], max_age: float) -> Optional[Result]:
    try:
        with open(path, "rb") as file:
            stored = json.loads(file.read().decode("ascii"))
    except FileNotFoundError:
        return None
    # abs(): an answer from the future means that a clock was set back, or that two login nodes differ.
    if stored.pop("argv") != list(argv) or abs(time.time() - stored["taken"]) > max_age:
        return None
    stored.pop("asked", None)
    return dict(stored)


def _take_snapshot(path: bytes, argv: Sequence[str], timeout: float) -> Result:
    command, environment = locate([native(word) for word in argv])
    asked = time.time()
    done = execute(command, environment, timeout=timeout, cap=SNAPSHOT_CAP)
    if done.truncated:
        # A cut queue would make its missing jobs look vanished.
        raise Failure("output_too_long", f"{argv[0]} printed more than {SNAPSHOT_CAP} bytes")
    taken = {
        "returncode": done.returncode,
        "stdout": as_text(done.stdout),
        "stderr": as_text(done.stderr),
        "timed_out": done.timed_out,
        "taken": time.time(),
    }
    # When it was asked, too: a job submitted while the query ran need not be in it.
    write_atomically(path, json.dumps(dict(taken, argv=list(argv), asked=asked)).encode("ascii"))
    return taken


def hello(blob: bytes, names: Sequence[str] = ()) -> Tuple[Result, bytes]:
    """Return what this machine is, and the asked environment variables, no others."""
    user = pwd.getpwuid(os.getuid())
    return {
        "version": VERSION,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": sys.platform,
        "machine": platform.machine(),
        "hostname": os.uname().nodename,
        "user": user.pw_name,
        "uid": user.pw_uid,
        "home": os.environ.get("HOME") or user.pw_dir,
        "pid": os.getpid(),
        "time": time.time(),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }, b""


def ping(blob: bytes) -> Tuple[Result, bytes]:
    """Answer; not even a busy satellite lets this wait."""
    return {}, b""


# ------------------------------------------------------------------------------------------------- PROCESSES
# A process is [pid, start]. The start (the kernel's ticks and boot, or what ps says where there is no /proc)
# tells it from a later process that got the same number.


_HAS_PROC = os.path.exists("/proc/self/stat")


def identify(pids: Sequence[int]) -> Dict[int, str]:
    """Return the start of each process that exists; a zombie does not."""
    if _HAS_PROC:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read()[:8]
        starts = {pid: _start_in_proc(pid, boot) for pid in pids}
        return {pid: start for pid, start in starts.items() if start is not None}
    return _starts_by_ps(pids)


def _start_in_proc(pid: int, boot: str) -> Optional[str]:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name, in parentheses, may hold anything: count from its end.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return f"{fields[19].decode()}-{boot}"


def _starts_by_ps(pids: Sequence[int]) -> Dict[int, str]:
    if not pids:
        return {}
    listed = ",".join(str(pid) for pid in pids).encode()
    environment = command_environment()
    environment[b"TZ"] = b"UTC0"  # lstart is a local time
    done = execute([b"ps", b"-o", b"pid=,state=,lstart=", b"-p", listed], environment)
    rows = [line.split() for line in done.stdout.decode("ascii", "replace").splitlines()]
    return {int(row[0]): "_".join(row[2:]) for row in rows if len(row) > 2 and not row[1].startswith("Z")}


def alive(blob: bytes, processes: Sequence[Tuple[int, str]]) -> Tuple[Result, bytes]:
    """Return ``alive``: whether each process still runs."""
    starts = identify([int(pid) for pid, _ in processes])
    return {"alive": [starts.get(int(pid)) == start for pid, start in processes]}, b""


def kill(blob: bytes, process: Tuple[int, str], name: str) -> Tuple[Result, bytes]:
    """Send a signal (``TERM``) to a started process; return whether it was still there as ``sent``.

    The process gets it for its group and hands it on as it sees fit. KILL can't be handed on, so it goes to
    every process of the session.
    """
    number = getattr(signal, "SIG" + name, None)
    if not isinstance(number, signal.Signals):
        raise Failure("bad_request", f"there is no signal {name!r}")
    pid, start = int(process[0]), process[1]
    if identify([pid]).get(pid) != start:
        return {"sent": False}, b""
    for member in _session(pid) if number == signal.SIGKILL else []:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, number)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
    return {"sent": True}, b""


def _session(leader: int) -> List[int]:
    if _HAS_PROC:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    else:
        done = execute([b"ps", b"-A", b"-o", b"pid="], command_environment())
        pids = [int(word) for word in done.stdout.split()]
    members = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid != leader and os.getsid(pid) == leader:
                members.append(pid)
    return members


# ---------------------------------------------------------------------------------------------------- SUBMIT

MAX_UNPACKED = 4 * 1024 * 1024 * 1024


class Ledger:
    """The file that proves whether, and as what job, a run directory was submitted.

    Lines ``KEY=VALUE``, only ever appended:

    * ``token``: the mark that the job carries in its name
    * ``intent``: epoch; from here on a job may exist
    * ``job_id``: it does
    * ``rejected``, ``void``: epoch; the last intent made no job (refused, or the process never ran)
    * ``released``: pid; written by the started process itself just before it becomes the job
    * ``adopted``, ``submitted``: epoch; for the reader
    """

    def __init__(self, folder: bytes) -> None:
        self.path = os.path.join(folder, b"ledger")
        self.token: Optional[str] = None
        self.intent: Optional[int] = None
        self.job_id: Optional[str] = None
        self.released = False
        try:
            with open(self.path, "rb") as file:
                lines = file.read().decode("utf-8", "surrogateescape").split("\n")[:-1]
        except (FileNotFoundError, NotADirectoryError):
            lines = []
        for number, line in enumerate(lines, 1):
            name, _, value = line.partition("=")
            try:
                self._apply(name, value)
            except ValueError:
                raise Failure("bad_ledger", f"{as_text(self.path)}:{number}: can't read {line!r}") from None

    def _apply(self, name: str, value: str) -> None:
        if name == "token":
            self.token = value
        elif name == "intent":
            self.intent, self.job_id, self.released = int(value), None, False
        elif name == "job_id":
            self.job_id = value
        elif name in ("rejected", "void"):
            self.intent, self.job_id, self.released = None, None, False
        elif name == "released":
            self.released = True

    def append(self, *lines: Tuple[str, object]) -> None:
        """Add lines, on disk when this returns."""
        text = "".join(f"{name}={value}\n" for name, value in lines)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # A machine's crash may have torn the last line, and a torn job id is a wrong one.
            size = os.fstat(descriptor).st_size
            tail = os.pread(descriptor, 4096, max(0, size - 4096))
            if tail and not tail.endswith(b"\n"):
                os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)
            write_all(descriptor, text.encode("utf-8", "surrogateescape"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for name, value in lines:
            self._apply(name, str(value))


def submit(
    blob: bytes,
    run_dir: str,
    workdir: str,
    token: str,
    mode: str,
    argv: Sequence[str],
    lock_timeout: float = 60.0,
    needs: Sequence[str] = (),
    limit: Optional[Result] = None,
    **command: Any,
) -> Tuple[Result, bytes]:
    """Unpack a bundle and submit it, once, however often this is called and wherever it was cut off before.

    Args:
        blob: The run directory's files as tar or tar.gz.
        run_dir: Below ``workdir``; one job for one run directory.
        workdir: Where this project may write.
        token: The job's mark; the same at every call for this run directory.
        mode: ``command``: ``argv`` submits and prints the job's id; ``process``: ``argv`` is the job.
        argv: Run in ``run_dir``.
        lock_timeout: How long to wait for another call on the same run directory.
        needs: Paths without which nothing is submitted.
        limit: How many jobs there may be (``Places``), if that is limited.
        command: How to read what the command says (``Command``), for mode ``command``.

    Returns:
        ``outcome``: ``submitted``, ``known`` (by the ledger), ``adopted`` (found by a lookup), ``rejected``,
        ``lacking`` (one of ``needs``, told in ``detail``), ``full`` (by ``limit``; ask again later) or
        ``uncertain`` (ask again, after ``retry_after`` seconds if given); ``job_id``; ``returncode``, ``stdout``
        and ``stderr`` of the command that decided; ``detail``; ``others``: more jobs with this token (there
        should be none).
    """
    if mode not in ("command", "process") or (mode == "command" and not command.get("lookups")):
        raise Failure("bad_request", "mode is 'process', or 'command' with at least one lookup")
    try:
        how = Command(**command)
    except TypeError as error:
        raise Failure("bad_request", f"submit: {error}") from error
    folder = os.path.normpath(native(run_dir))
    _check_below(folder, native(workdir))
    make_folder(os.path.dirname(folder))
    with locked(folder + b".lock", lock_timeout):
        ledger = Ledger(folder)
        if ledger.token not in (None, token):
            raise Failure("token_mismatch", f"{run_dir} belongs to {ledger.token}, not {token}")
        places = Places(limit, token)
        reply = _known_process(folder, ledger) if mode == "process" else _known_job(ledger, how)
        if reply is None:
            reply = _lacking(needs)
        if reply is None and not places.take():
            reply = places.full()
        if reply is None:
            try:
                reply = _submit_new(blob, folder, token, argv, how if mode == "command" else None)
            except (OSError, Failure):
                places.settle({"outcome": "rejected"})
                raise
        places.settle(reply)
        return reply, b""


class Command(NamedTuple):
    """How a command that submits is to be understood.

    Attributes:
        lookups: Commands that list jobs that carry the token, asked when an earlier call's end is not known.
            One that fails proves nothing, and nothing is submitted then.
        id_pattern: Regular expression; group 1 is the id in a line of the command's output; the last counts.
        lookup_pattern: The same for the lookups' output.
        ambiguous: Regular expressions of error texts after which the job may exist all the same.
        window: How long a job may exist without a lookup showing it.
        command_timeout: For the command and for each lookup.
    """

    lookups: Sequence[Sequence[str]] = ()
    id_pattern: str = r"^(\d+)(;|$)"
    lookup_pattern: str = r"^(\d+)\|"
    ambiguous: Sequence[str] = ()
    window: float = 300.0
    command_timeout: float = 60.0


def _known_job(ledger: Ledger, how: Command) -> Optional[Result]:
    """Return the job of an earlier call, or why nobody knows yet whether there is one."""
    if ledger.job_id is not None:
        return {"outcome": "known", "job_id": ledger.job_id}
    if ledger.intent is not None:
        return _look_up(ledger, how) or _wait(ledger, how.window)
    return None


def _known_process(folder: bytes, ledger: Ledger) -> Optional[Result]:
    """Return the process of an earlier call, if it became the job."""
    if ledger.job_id is not None and not ledger.released:
        _settle_start(folder, ledger)
    return None if ledger.job_id is None else {"outcome": "known", "job_id": ledger.job_id}


def _lacking(needs: Sequence[str]) -> Optional[Result]:
    missing = [path for path in needs if not os.path.lexists(native(path))]
    return {"outcome": "lacking", "detail": missing[0]} if missing else None


def _submit_new(
    blob: bytes, folder: bytes, token: str, argv: Sequence[str], how: Optional[Command]
) -> Result:
    if how is None:
        unpack(blob, folder, token)
        return _start(folder, argv)
    command, environment = locate([native(word) for word in argv])
    ledger = unpack(blob, folder, token)
    done = execute(command, environment, folder, timeout=how.command_timeout)
    return _conclude(ledger, done, how)


def _check_below(folder: bytes, workdir: bytes) -> None:
    top = os.path.normpath(workdir)
    if not os.path.isabs(top) or not folder.startswith(top + b"/"):
        raise Failure("outside", f"{as_text(folder)} is not below {as_text(workdir)}")


def _look_up(ledger: Ledger, how: Command) -> Optional[Result]:
    failed = None
    for lookup in how.lookups:
        command, environment = locate([native(word) for word in lookup])
        done = execute(command, environment, timeout=how.command_timeout)
        if done.returncode != 0:
            failed = dict(_said(done), outcome="uncertain", detail=f"{lookup[0]} failed")
            continue
        ids = _ids(how.lookup_pattern, done.stdout)
        if ids:
            ledger.append(("job_id", ids[0]), ("adopted", int(time.time())))
            return {"outcome": "adopted", "job_id": ids[0], "others": ids[1:]}
    return failed


def _wait(ledger: Ledger, window: float) -> Optional[Result]:
    now = int(time.time())
    intent = ledger.intent or 0
    if now < intent:
        # The clock was set back, or another login node's differs: count from now, rather than for ever.
        ledger.append(("intent", now))
        intent = now
    # One more than the window: both seconds are cut off, and a job seen a moment too late is made twice.
    left = intent + window + 1 - now if window else 0
    if left <= 0:
        return None
    return {
        "outcome": "uncertain",
        "retry_after": left,
        "detail": "an earlier submission's end is unknown, and no job with its token is seen yet",
    }


def _conclude(ledger: Ledger, done: Completed, how: Command) -> Result:
    ids = _ids(how.id_pattern, done.stdout) if done.returncode == 0 else []
    if ids:
        ledger.append(("job_id", ids[-1]), ("submitted", int(time.time())))
        return dict(_said(done), outcome="submitted", job_id=ids[-1])
    if done.timed_out:
        return dict(_said(done), outcome="uncertain", detail="the command did not end in time")
    if done.returncode == 0:
        return dict(_said(done), outcome="uncertain", detail="the command printed no job id")
    for pattern in how.ambiguous:
        if re.search(pattern, as_text(done.stderr)):
            return dict(_said(done), outcome="uncertain", detail="the job may exist all the same")
    ledger.append(("rejected", int(time.time())))
    return dict(_said(done), outcome="rejected")


def _said(done: Completed) -> Result:
    return {"returncode": done.returncode, "stdout": as_text(done.stdout), "stderr": as_text(done.stderr)}


def _ids(pattern: str, output: bytes) -> List[str]:
    matches = [re.search(pattern, line) for line in as_text(output).splitlines()]
    return list(dict.fromkeys(match.group(1) for match in matches if match))


def unpack(bundle: bytes, folder: bytes, token: str) -> Ledger:
    """Make the run directory from a bundle, with an intent in its ledger; an older ledger is kept."""
    temporary = temporary_name(folder)
    try:
        os.mkdir(temporary, 0o700)
        _extract(bundle, temporary)
        if not os.path.isdir(folder):
            # Renamed with the intent inside: there is no moment at which the folder lacks its ledger.
            ledger = Ledger(temporary)
            ledger.append(("token", token), ("intent", int(time.time())))
            os.rename(temporary, folder)
        else:
            for name in os.listdir(temporary):
                remove_tree(os.path.join(folder, name))
                os.rename(os.path.join(temporary, name), os.path.join(folder, name))
            Ledger(folder).append(("token", token), ("intent", int(time.time())))
    finally:
        remove_tree(temporary)
    return Ledger(folder)


def _extract(bundle: bytes, folder: bytes) -> None:
    # By hand: tarfile's extraction filters came with 3.12, and a bundle is only ever files and folders.
    mode: Any = "r:gz" if bundle[:2] == b"\x1f\x8b" else "r:"
    total = 0
    try:
        with tarfile.open(
            fileobj=io.BytesIO(bundle), mode=mode, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for member in tar:
                path = _safe_path(member, folder)
                total += member.size
                if total > MAX_UNPACKED:
                    raise Failure("unsafe_bundle", f"the bundle unpacks to more than {MAX_UNPACKED} bytes")
                if member.isdir():
                    make_folder(path)
                else:
                    make_folder(os.path.dirname(path))
                    _extract_file(tar, member, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the bundle's (gzip says OSError without a number)
        raise Failure("bad_bundle", f"the bundle can't be read: {error}") from error


def _safe_path(member: tarfile.TarInfo, folder: bytes) -> bytes:
    name = native(member.name)
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    plain = member.isdir() or (member.isreg() and not member.issparse() and parts)
    if not plain or name.startswith(b"/") or b".." in parts or parts == [b"ledger"]:
        raise Failure("unsafe_bundle", f"the bundle holds {member.name!r}, which may not be in one")
    return os.path.join(folder, *parts)


def _extract_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> None:
    mode = 0o700 if member.mode & 0o111 else 0o600
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise Failure("unsafe_bundle", f"the bundle holds {member.name!r} twice") from None
    source = tar.extractfile(member)
    with os.fdopen(descriptor, "wb") as target:
        if source is not None:
            shutil.copyfileobj(source, target, _CHUNK)


_GATE = """umask 077
IFS= read -r word && [ "$word" = go ] || exit 75
printf 'released=%s\\n' "$$" >>ledger || exit 75
exec "$@" </dev/null
"""
"""The started process waits here until its id is in the ledger; without the word it ends and ran nothing."""


def _start(folder: bytes, argv: Sequence[str]) -> Result:
    ledger = Ledger(folder)
    logs = [
        os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for name in (b"stdout.log", b"stderr.log")
    ]
    try:
        process: Any = subprocess.Popen(
            [b"/bin/sh", b"-c", _GATE.encode(), b"sh", *(native(word) for word in argv)],
            stdin=subprocess.PIPE,
            stdout=logs[0],
            stderr=logs[1],
            cwd=folder,
            env=job_environment(),
            start_new_session=True,
        )
    finally:
        for log in logs:
            os.close(log)
    start = identify([process.pid]).get(process.pid)
    job_id = f"{process.pid}:{start}"
    ledger.append(("job_id", job_id))
    with contextlib.suppress(BrokenPipeError):  # killed meanwhile: its watcher will see
        os.write(process.stdin.fileno(), b"go\n")
    process.stdin.close()
    ledger.append(("submitted", int(time.time())))
    # In a long-lived process somebody has to collect the exit, or a zombie stays.
    threading.Thread(target=process.wait, name=f"reaper-{process.pid}", daemon=True).start()
    return {"outcome": "submitted", "job_id": job_id}


def _settle_start(folder: bytes, ledger: Ledger) -> None:
    """Find out whether a process whose starter was killed became the job; if not, the ledger says so."""
    number, _, start = (ledger.job_id or "").partition(":")
    pid = int(number)
    patience = time.monotonic() + 5.0
    while True:
        waiting = identify([pid]).get(pid) == start
        # Read after looking: a process that has ended since may have been the job.
        if Ledger(folder).released:
            ledger.released = True
            return
        if not waiting:
            ledger.append(("void", int(time.time())))
            return
        if time.monotonic() > patience:  # a process forked from its starter may hold the gate's pipe open
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


# ----------------------------------------------------------------------------------------------------- PLACES


class Places:
    """The places that a limited number of jobs may take, in a file: all processes on all machines share it.

    A place is taken before a job is submitted and noted with the job's id after it. The notes are believed until a
    younger answer of the queue holds the job, or should hold it. So no submission asks Slurm, and none is too many;
    only where all places seem taken is the queue's shared answer renewed, within the budget.

    Args:
        limit: ``jobs`` (the most there may be), ``path`` (the file), ``window`` (seconds within which a job shows in
            the queue), and for Slurm ``snapshot`` (the parameters of ``snapshot``) and ``live`` (a regular
            expression; group 1 is the id in a line about a job that takes a place). Without ``snapshot`` jobs are
            processes, and looked at themselves. Nothing: there are places without end.
        token: The mark of the job in question.
    """

    SLACK = 2.0
    """Seconds by which the clocks of two login nodes may differ."""

    def __init__(self, limit: Optional[Result], token: str) -> None:
        self._limit = limit or {}
        self._token = token
        self._asked = 0.0
        self._seen: List[str] = []
        self._noted: Dict[str, Result] = {}

    def take(self) -> bool:
        """Take a place; return whether there was one."""
        if not self._limit or self._take(known=False):
            return True
        if self._limit.get("snapshot"):
            with contextlib.suppress(Failure):  # over budget, or nobody answers: what is known has to do
                snapshot(b"", **self._limit["snapshot"])
        return self._take(known=True)

    def full(self) -> Result:
        """Return the reply of a submission that has to wait."""
        most = self._limit["jobs"]
        said = f"{len(self._others())} jobs wait or run, and limits.max_submit_jobs is {most}"
        return {"outcome": "full", "detail": said}

    def settle(self, reply: Result) -> None:
        """Note what became of a submission; one whose end nobody knows keeps its place for a while."""
        outcome = reply["outcome"]
        if not self._limit or outcome in ("full", "lacking", "uncertain"):
            return
        with self._open():
            if outcome == "rejected":
                self._noted.pop(self._token, None)
            elif outcome != "known" or self._token in self._noted:
                self._noted[self._token] = {"at": time.time(), "job_id": reply["job_id"]}

    def _take(self, known: bool) -> bool:
        with self._open():
            # The first of all asks the queue: what was submitted before there was a file counts as well.
            unknown = bool(self._limit.get("snapshot")) and not self._asked and not known
            if unknown or len(self._others()) >= int(self._limit["jobs"]):
                return False
            self._noted[self._token] = {"at": time.time(), "job_id": None}
            return True

    def _others(self) -> Set[str]:
        notes = [(token, note) for token, note in self._noted.items() if token != self._token]
        return set(self._seen) | {note["job_id"] or token for token, note in notes}

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        path = native(self._limit["path"])
        make_folder(os.path.dirname(path))
        with locked(path + b".lock", 60.0):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                kept = json.loads(file.read().decode("ascii"))
                self._asked, self._seen, self._noted = kept["asked"], kept["seen"], kept["noted"]
            self._learn()
            yield
            kept = {"asked": self._asked, "seen": self._seen, "noted": self._noted}
            write_atomically(path, json.dumps(kept).encode("ascii"))

    def _learn(self) -> None:
        query = self._limit.get("snapshot")
        if query is None:
            self._learn_of_processes()
            return
        try:
            with open(native(query["path"]), "rb") as file:
                told = json.loads(file.read().decode("ascii"))
        except FileNotFoundError:
            return
        asked = told.get("asked", 0.0)
        failed = told["returncode"] != 0 or told["timed_out"] or "error" in told["stderr"]
        if failed or asked <= self._asked or told["argv"] != list(query["argv"]):
            return
        self._asked, self._seen = asked, _ids(self._limit["live"], native(told["stdout"]))
        self._noted = {token: note for token, note in self._noted.items() if not self._outdated(note)}

    def _outdated(self, note: Result) -> bool:
        if note["job_id"] in self._seen:
            return True
        patience = float(self._limit["window"]) if note["job_id"] is None else 0.0
        return bool(note["at"] + patience + self.SLACK < self._asked)

    def _learn_of_processes(self) -> None:
        ids = {token: (note["job_id"] or "").partition(":") for token, note in self._noted.items()}
        starts = identify([int(pid) for pid, _, _ in ids.values() if pid])
        oldest = time.time() - float(self._limit["window"])
        self._noted = {
            token: note
            for token, note in self._noted.items()
            if (starts.get(int(ids[token][0])) == ids[token][2] if note["job_id"] else note["at"] > oldest)
        }


# ----------------------------------------------------------------------------------------------------- SERVE

OPS: Dict[str, Callable[..., Tuple[Result, bytes]]] = {
    "hello": hello,
    "ping": ping,
    "submit": submit,
    "read": read,
    "put": put,
    "mkdir": mkdir,
    "remove": remove,
    "disk": disk,
    "run": run,
    "snapshot": snapshot,
    "alive": alive,
    "kill": kill,
}

_WORKERS = 32
_FAREWELL = 90.0
"""Seconds in which a submission under way may still write its job's id when the connection is gone."""

_CODES = {
    errno.ENOENT: "not_found",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
}


def handle(op: str, params: Result, blob: bytes = b"") -> Tuple[Result, bytes]:
    """Do one operation; raises Failure."""
    function = OPS.get(op)
    if function is None:
        raise Failure("unknown_op", "there is no operation {!r}; there are {}".format(op, ", ".join(OPS)))
    try:
        arguments = inspect.signature(function).bind(blob, **params)
    except TypeError as error:
        raise Failure("bad_request", f"{op}: {error}") from error
    try:
        return function(*arguments.args, **arguments.kwargs)
    except OSError as error:
        code = _CODES.get(error.errno or 0, "failed")
        place = as_text(error.filename) if isinstance(error.filename, bytes) else error.filename
        raise Failure(code, f"{place}: {error.strerror}" if place else str(error)) from error


def reply_to(request: Result, blob: bytes) -> bytes:
    """Return the reply's frame; whatever goes wrong is a reply as well."""
    try:
        result, data = handle(request.get("op", ""), request.get("params", {}), blob)
        return encode_frame({"id": request.get("id"), "ok": True, "result": result}, data)
    except Failure as failure:
        code, message = failure.code, failure.message
    except FrameError as error:
        code, message = "too_large", str(error)
    except Exception:  # noqa: BLE001 - a fault of ours must not take the other requests down; it is told
        code, message = "internal", traceback.format_exc()
    return encode_frame({"id": request.get("id"), "ok": False, "code": code, "error": message})


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests, several at a time, until ``requests`` ends; kills nothing then."""
    writing = threading.Lock()
    submissions: Set["concurrent.futures.Future[None]"] = set()
    pool = concurrent.futures.ThreadPoolExecutor(_WORKERS)

    def send(frame: bytes) -> None:
        with writing, contextlib.suppress(OSError):  # the client may be gone
            replies.write(frame)
            replies.flush()

    def answer(request: Result, blob: bytes) -> None:
        send(reply_to(request, blob))

    send(READY)
    while True:
        try:
            frame = read_frame(requests.read)
        except FrameError as error:
            send(encode_frame({"id": None, "ok": False, "code": "bad_frame", "error": str(error)}))
            break
        if frame is None:
            break
        request, blob = frame
        if request.get("op") == "ping":
            answer(request, blob)
            continue
        future = pool.submit(answer, request, blob)
        if request.get("op") == "submit":
            submissions.add(future)
            future.add_done_callback(submissions.discard)
    concurrent.futures.wait(list(submissions), timeout=_FAREWELL)


def main() -> None:
    """Serve on standard input and output; nothing else may print there."""
    os.umask(0o077)
    os.chdir("/")  # holds no folder busy
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)  # nobody reads it at the other end, and a full pipe would stop us
    serve(sys.stdin.buffer, replies)
    os._exit(0)  # not waiting for hanging commands, as the interpreter's normal end would


if __name__ == "__main__":
    main()
