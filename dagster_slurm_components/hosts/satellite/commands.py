"""Commands of the host: found, run with a time limit, and in an environment that nothing of the user bends."""

import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from dagster_slurm_components.hosts.satellite.calls import Completed
from dagster_slurm_components.hosts.satellite.protocol import Failure, as_text, native

OUTPUT_CAP = 8 * 1024 * 1024

Environment = Dict[bytes, bytes]

_OPTIONS = re.compile(rb"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO)_")
_CLUSTER = (b"SLURM_CONF", b"SLURM_CONF_SERVER", b"SLURM_JWT", b"SLURM_JWT_PATH", b"SLURM_SACK_SOCKET")
"""Where the cluster is, and how one proves who one is."""
_INHERITED = re.compile(
    rb"(HOME|USER|LOGNAME|SHELL|PATH|LD_LIBRARY_PATH|LANG|LANGUAGE|LC_[A-Z_]+|TZ|KRB5CCNAME"
    rb"|BASH_ENV|MODULEPATH|MODULESHOME|MODULES_[A-Z_]+|LMOD_[A-Z_]+"
    rb"|BASH_FUNC_(ml|module|_module_raw)(%%|\(\))|DAGSTER_SLURM_HOST_PYTHON)\Z"
)
"""What a job inherits: the login's identity, its locale, how modules are found, and the Python that its profile names;
not which modules it has loaded, whose variables are left out, so that loading one again would do nothing."""

_COERCED = (b"C.UTF-8", b"C.utf8", b"UTF-8")
_LOGIN_SHELL = b"printf '\\0login\\0'; exec env -0"
_LOGIN_NAMES = (b"PATH", b"SLURM_CONF", b"LD_LIBRARY_PATH")
_login_lock = threading.Lock()
_login_found: List[Environment] = []

ASIDE = b"DAGSTER_SLURM_UMASK=$(umask); export DAGSTER_SLURM_UMASK; umask 077"
"""Sets the login's umask aside, and our own, in a shell: reading it in this process would change it for all threads."""

_AFTER_EXIT = 0.5
"""Seconds to listen to a pipe after the command's end: a daemon that it started may hold it open for ever."""


def command_environment() -> Environment:
    """Return the environment for the host's own commands: no user option of Slurm, no translated message.

    Slurm's programs take options from variables, and ``SBATCH_*`` even beats a job script's own lines. What says
    where the cluster is stays; times are printed as seconds since 1970.
    """
    environment = {
        name: value for name, value in os.environb.items() if name in _CLUSTER or not _OPTIONS.match(name)
    }
    return {**environment, b"LC_ALL": b"C", b"SLURM_TIME_FORMAT": b"%s"}


def job_environment(export: Sequence[str] = ()) -> Environment:
    """Return the environment for a job: what any job inherits, and what it asks for by name.

    Here may run whatever runs Dagster, with its passwords: what is not named stays out of the job, and so out of
    Slurm's spool and database. A variable that is not set here is the login shell's.
    """
    environment = {name: value for name, value in os.environb.items() if _INHERITED.match(name)}
    # Without any locale Python gives itself one, and its children (PEP 538): the login has none.
    if not environment.keys() & {b"LANG", b"LC_ALL"} and environment.get(b"LC_CTYPE") in _COERCED:
        del environment[b"LC_CTYPE"]
    for name in map(native, export):
        value = os.environb[name] if name in os.environb else login_environment().get(name)
        if value is None:
            why = (
                f"the variable {as_text(name)}, which `export` names, is not set here, nor by the login shell"
            )
            raise Failure("not_set", why)
        environment[name] = value
    return environment


def submission_environment(export: Sequence[str] = ()) -> Environment:
    """Return the environment for sbatch, which hands it on: that of a job, and what reaching the cluster needs."""
    cluster = {name: os.environb[name] for name in _CLUSTER if name in os.environb}
    return {**job_environment(export), **cluster}


def locate(
    words: Sequence[str], environment: Optional[Environment] = None
) -> Tuple[List[bytes], Environment]:
    """Return a command with its program found, and the environment to run it in: by default that of our own ones.

    Many sites put Slurm on PATH in /etc/profile.d alone, which a command over ssh never reads: what is not on
    PATH is looked for once more on the login shell's.
    """
    argv = [native(word) for word in words]
    if not argv or not argv[0]:
        raise Failure("bad_request", "an empty command")
    environment = command_environment() if environment is None else dict(environment)
    if b"/" in argv[0]:
        if os.path.isabs(argv[0]) and _find(argv[0], b"") is None:
            raise Failure("no_such_program", f"{as_text(argv[0])} is not an executable file")
        return argv, environment
    program = _find(argv[0], environment.get(b"PATH", os.defpath.encode()))
    if program is None:
        login = login_environment()
        environment.update({name: login[name] for name in _LOGIN_NAMES if login.get(name)})
        program = _find(argv[0], environment.get(b"PATH", b""))
    if program is None:
        ours, theirs = os.environ.get("PATH", ""), as_text(environment.get(b"PATH", b""))
        why = f"{as_text(argv[0])} is neither on PATH ({ours}) nor on the login shell's ({theirs})"
        raise Failure("no_such_program", why)
    return [program, *argv[1:]], environment


def _find(name: bytes, path: bytes) -> Optional[bytes]:
    program = shutil.which(os.fsdecode(name), path=os.fsdecode(path))  # takes bytes since Python 3.8 alone
    return None if program is None else os.fsencode(program)


def login_environment() -> Environment:
    """Return what the login shell sets; asked until it has answered once: a busy login node may take its time."""
    with _login_lock:
        if not _login_found:
            completed = execute([b"bash", b"-lc", _LOGIN_SHELL], command_environment(), timeout=10)
            _, marker, said = completed.stdout.rpartition(b"\0login\0")
            if not marker:
                return {}
            pairs = (line.partition(b"=") for line in said.split(b"\0") if line)
            _login_found.append({name: value for name, _, value in pairs})
        return _login_found[0]


class NotStartedError(OSError):
    """A command did not begin: there is no process, file or memory for it."""


def execute(
    argv: Sequence[bytes],
    environment: Environment,
    cwd: Optional[bytes] = None,
    stdin: bytes = b"",
    timeout: float = 60.0,
    cap: int = OUTPUT_CAP,
) -> Completed:
    """Run a command in its own process group; at the timeout the whole group is killed.

    Its umask is 077, and ``DAGSTER_SLURM_UMASK`` the login's: sbatch hands both on to the job, whose script gives the
    payload the login's. Raises NotStartedError.
    """
    pipe = subprocess.PIPE
    words = [b"/bin/sh", b"-c", ASIDE + b'; exec "$@"', b"sh", *argv]
    process: Any
    try:
        process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=environment, start_new_session=True
        )
    except OSError as error:
        raise NotStartedError(error.errno, error.strerror, error.filename) from error
    with process:
        deadline = time.monotonic() + timeout
        outputs, truncated = _converse(process, stdin, deadline, cap)
        timed_out = False
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
    return Completed(process.returncode, outputs[0], outputs[1], timed_out, truncated)


def _converse(process: Any, stdin: bytes, deadline: float, cap: int) -> Tuple[List[bytes], bool]:
    outputs = [bytearray(), bytearray()]
    truncated = False
    pending = memoryview(stdin)
    # Not one that takes a file descriptor: with none left it would fail once the command runs, as if it did not.
    with selectors.PollSelector() as selector:
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
