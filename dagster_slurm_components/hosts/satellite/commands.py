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

_LOGIN_SHELL = r"""printf '\0login\0%s\0%s\0%s\0' "$PATH" "$SLURM_CONF" "$LD_LIBRARY_PATH" """
_LOGIN_NAMES = (b"PATH", b"SLURM_CONF", b"LD_LIBRARY_PATH")
_login_lock = threading.Lock()
_login_found: List[Environment] = []

_AFTER_EXIT = 0.5
"""Seconds to listen to a pipe after the command's end: a daemon that it started may hold it open for ever."""


def command_environment() -> Environment:
    """Return the environment for the host's own commands: no user option of Slurm, no translated message.

    Slurm's programs take options from variables, and ``SBATCH_*`` even beats a job script's own lines. What says
    where the cluster is stays; times are printed as seconds since 1970.
    """
    environment = job_environment()
    for name in (b"SLURM_CONF", b"SLURM_JWT", b"SLURM_JWT_PATH"):
        if name in os.environb:
            environment[name] = os.environb[name]
    return {**environment, b"LC_ALL": b"C", b"SLURM_TIME_FORMAT": b"%s"}


def job_environment() -> Environment:
    """Return the environment for a job that is a plain process: nothing hints that it is in Slurm."""
    slurm = re.compile(rb"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO)_")
    return {name: value for name, value in os.environb.items() if not slurm.match(name)}


def locate(words: Sequence[str]) -> Tuple[List[bytes], Environment]:
    """Return a command with its program found, and the environment to run it in.

    Many sites put Slurm on PATH in /etc/profile.d alone, which a command over ssh never reads: what is not on
    PATH is looked for once more on the login shell's.
    """
    argv = [native(word) for word in words]
    if not argv or not argv[0]:
        raise Failure("bad_request", "an empty command")
    environment = command_environment()
    if b"/" in argv[0]:
        if os.path.isabs(argv[0]) and _find(argv[0], b"") is None:
            raise Failure("no_such_program", f"{as_text(argv[0])} is not an executable file")
        return argv, environment
    program = _find(argv[0], environment.get(b"PATH", os.defpath.encode()))
    if program is None:
        environment.update(login_environment())
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
