"""The processes that a launcher starts and answers for.

Nothing may outlive a job: not a rank that ignores SIGTERM, not a daemon that a payload left behind. Where Slurm
tracks processes by cgroup it sees to that; where it follows parent processes (proctrack/linuxproc) what has
detached itself is lost to it, holds the step's pipes open and delays its end by a minute (seen on 22.05).
So a Family is the reaper of all its descendants, and a child dies with the process that started it.
"""

import collections
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

try:
    import ctypes
except ImportError:  # Python built without libffi: works, without the two guards of the kernel.
    ctypes = None  # type: ignore[assignment]

LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

STOP = (signal.SIGTERM, signal.SIGINT)
"""Signals that mean: come to an end."""
PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that concern the payload."""


class Event(NamedTuple):
    """A child ended (with its code, as shells give it), a signal arrived from outside, or the watched file closed."""

    ended: Optional[str] = None
    code: int = 0
    signal: int = 0
    closed: bool = False


def _prctl(option: int, value: int) -> None:
    if LINUX and ctypes is not None:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> List[int]:
    """Return the ids of all processes below ``root``; on systems without /proc nothing is known of them."""
    children: Dict[int, List[int]] = {}
    for name in os.listdir("/proc") if LINUX else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The program's name, in parentheses, may hold anything; the state and the parent follow it.
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != b"Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    family = [root]
    for pid in family:  # grows while it is read
        family += children.get(pid, [])
    return family[1:]


def _send(how: Callable[[int, int], None], pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have ended just now
        how(pid, number)


class Family:
    """The children of this process by name, and everything they start."""

    def __init__(self) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._names: Dict[int, str] = {}
        self._groups: Set[int] = set()
        self.spared: Set[int] = set()
        """Children that `kill` leaves alone."""
        self._events: Deque[Event] = collections.deque()
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        # Signals are read from a pipe, one byte each, so that none interrupts anything half done.
        signal.set_wakeup_fd(writer)
        for number in (*PASSED, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: None)

    def start(self, name: str, argv: Sequence[str], *, ignored: Tuple[int, ...] = (), **how: Any) -> None:
        """Start a child, which is not to die of the ``ignored`` signals, in a session of its own, as Popen does."""
        parent = os.getpid()

        def prepare() -> None:
            for number in PASSED:
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the guard was set
                os._exit(1)

        # Open files stay open: PMI hands a rank its connection as a file descriptor (srun --mpi=pmi2).
        process = subprocess.Popen(
            argv,
            close_fds=False,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - there are no threads here
            **how,
        )
        process.returncode = 0  # its end is seen by `_reap`; nobody else is to wait for it
        self._names[process.pid] = name
        self._groups.add(process.pid)

    def running(self, name: str) -> bool:
        """Whether a child of that name has not ended yet."""
        return name in self._names.values()

    def signal(self, name: str, number: int, group: bool = False) -> None:
        """Send a signal to a child, or to its whole process group."""
        for pid in [pid for pid, known in self._names.items() if known == name]:
            _send(os.killpg if group else os.kill, pid, number)

    def signal_all(self, number: int) -> None:
        """Send a signal to every process below this one, as Slurm does with a job step."""
        for pid in descendants(os.getpid()) if LINUX else list(self._names):
            _send(os.kill, pid, number)

    def wait(self, until: Optional[float] = None, watch: Optional[int] = None) -> Optional[Event]:
        """Return the next event, of the file descriptor ``watch`` too; None at a moment of the monotonic clock."""
        while True:
            self._reap()
            if self._events:
                return self._events.popleft()
            left = None if until is None else until - time.monotonic()
            if left is not None and left < 0:
                return None
            readable = select.select([self._reader] + ([] if watch is None else [watch]), [], [], left)[0]
            if self._reader in readable:
                numbers = os.read(self._reader, 4096)
                self._events.extend(Event(signal=number) for number in numbers if number != signal.SIGCHLD)
            elif watch is not None and readable and not os.read(watch, 4096):
                return Event(closed=True)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._names:
                killed = os.WIFSIGNALED(status)
                code = 128 + os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)
                self._events.append(Event(self._names.pop(pid), code))

    def kill(self) -> None:
        """Kill everything that descends from this process, what has detached itself included."""
        if not LINUX:
            for group in self._groups:
                _send(os.killpg, group, signal.SIGKILL)
            return
        deadline = time.monotonic() + 5
        # In rounds: a process may start another one while it is being killed.
        while time.monotonic() < deadline:
            pids = [pid for pid in descendants(os.getpid()) if pid not in self.spared]
            if not pids:
                return
            for pid in pids:
                _send(os.kill, pid, signal.SIGKILL)
            time.sleep(0.02)
            self._reap()


def attend(
    family: Family, name: str, grace: float, relay: Optional[Callable[[int], None]] = None
) -> Tuple[int, bool]:
    """Wait for a child's end and end what it leaves behind; return its exit code, and whether it was asked to stop.

    SIGTERM and SIGINT mean that it has ``grace`` seconds to end before it is killed. ``relay`` is called with
    each signal that arrives; without it none is passed on, for Slurm itself signals every process of a step.
    """
    kill_at: Optional[float] = None
    stopped = False
    while True:
        event = family.wait(kill_at)
        if event is None:
            family.kill()
            kill_at = None
        elif event.ended == name:
            break
        elif event.signal:
            if event.signal in STOP:
                stopped = True
                kill_at = kill_at or time.monotonic() + grace
            if relay is not None:
                relay(event.signal)
    stopped = stopped or is_stopping(family, event.code)
    family.kill()
    return event.code, stopped


def is_stopping(family: Family, code: int) -> bool:
    """Whether a child ended by a signal that we get as well: Slurm signals all processes of a step, in any order."""
    if code not in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        return False
    later = family.wait(time.monotonic() + 0.2)
    return later is not None and later.signal in STOP


def run_step(argv: Sequence[str], grace: float, env: Optional[Dict[str, str]] = None) -> Tuple[int, bool]:
    """Run srun to its end, and return the same."""
    family = Family()
    family.start("srun", argv, env=env)
    # Longer than the grace on the nodes: there they clean up themselves.
    return attend(family, "srun", grace + 10, lambda number: family.signal("srun", number))
