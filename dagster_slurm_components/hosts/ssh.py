"""The satellite over ssh: OpenSSH's own program makes one connection, and each satellite is a session on it."""

import contextlib
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from dagster_slurm_components.errors import HostError, HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts import bootstrap
from dagster_slurm_components.hosts.answers import Answers
from dagster_slurm_components.hosts.base import Pipe, address
from dagster_slurm_components.hosts.bootstrap import SubprocessPipe
from dagster_slurm_components.hosts.ssh_errors import DroppedError
from dagster_slurm_components.hosts.ssh_login import Login
from dagster_slurm_components.spec.hosts import JumpHost, SshHost

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
"""Seconds between attempts when sshd hangs up early: above MaxStartups (10 by default) it drops at random."""

_LEFT_BEHIND = 600.0
"""Seconds after which a login's folder without a master's socket belongs to nobody."""

_SESSION_PAUSES = (0.2,) * 4
_SSH_FAILED = 255
_T = TypeVar("_T")
_START_TIMEOUT = 60.0
"""Seconds for the login shell's own files and the satellite's start; both may lie on a slow network disk."""


class Connection:
    """A login of OpenSSH that sessions share: its master process, found by a socket in a folder closed to others.

    The master belongs to nobody: killed with our process or not, it ends ``ssh_login.PERSIST`` seconds after its
    last session.
    """

    def __init__(self) -> None:
        # The path of a socket holds 107 bytes, and ssh's own temporary name is 17 longer; a shell reads it, too.
        plain = re.fullmatch(r"[\w./-]{1,60}", tempfile.gettempdir(), re.ASCII)
        place = tempfile.gettempdir() if plain else "/tmp"  # noqa: S108 - mkdtemp makes it safe
        # What a killed process left is of no use once its master has ended and removed the socket.
        for old in Path(place).glob("dg-slurm-ssh-*"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > _LEFT_BEHIND and not (old / "master").exists():
                    shutil.rmtree(old)
        self.folder = Path(tempfile.mkdtemp(prefix="dg-slurm-ssh-", dir=place))
        self.close = weakref.finalize(self, _end, self.folder, os.getpid())

    def stands(self) -> bool:
        """Whether the master lives."""
        return _tell_master(self.folder, "check")


def same_login(spec: SshHost) -> str:
    """Return a text that is the same for all spellings of one login: names as ``~/.ssh/config`` reads them."""
    hops: list[SshHost | JumpHost] = [*spec.jump, spec]
    each = [(_destination(hop, spec), hop.login, hop.key_file or spec.key_file) for hop in hops]
    return repr((each, spec.known_hosts_file, spec.secret_command, spec.python, spec.setup))


def _destination(hop: SshHost | JumpHost, spec: SshHost) -> tuple[str, ...]:
    user = hop.user or spec.user
    options = [f"-p{hop.port}"] * ("port" in hop.model_fields_set) + [f"-l{user}"] * bool(user)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # then nobody can log in, and is told why
        # As a login reads them: ssh itself takes its files from the home folder of the passwd file.
        config = f'Include "{Path.home() / ".ssh" / "config"}"\nInclude /etc/ssh/ssh_config\n'
        argv = ["ssh", "-F", "/dev/stdin", "-G", *options, "--", hop.hostname]
        done = subprocess.run(argv, input=config, capture_output=True, text=True, check=False, timeout=10)
        read = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        if done.returncode == 0:
            return read["user"], read["hostname"], read["port"]
    return user or "", hop.hostname, str(hop.port)


def _end(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child's exit must not end its parent's connection
        _tell_master(folder, "exit")
        shutil.rmtree(folder, ignore_errors=True)


def _tell_master(folder: Path, what: str) -> bool:
    command = [*_through(folder), f"-O{what}", "host"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _through(folder: Path) -> list[str]:
    """Return the beginning of a command line for the master; without a master it fails instead of logging in anew."""
    return ["ssh", "-Fnone", f"-oControlPath={folder / 'master'}", "-oProxyCommand=false", "-oBatchMode=yes"]


class SessionRefusedError(HostRefusedError):
    """The host opens no further session on the connection."""


class SessionPipe(SubprocessPipe):
    """A pipe to a satellite in a session of a connection.

    Closing it hangs up the connection as well, if ``hang_up`` is given, unless the session ended by itself: then it is
    the satellite that was killed, and another login might need a person.
    """

    def __init__(self, argv: Sequence[str], where: str, hang_up: Callable[[], object] | None) -> None:
        super().__init__(argv, where)
        self.hang_up = hang_up
        self._ended = self._hung_up = False

    def read(self, size: int) -> bytes:
        """Read, and remember the end."""
        data = super().read(size)
        self._ended = self._ended or not data
        return data

    def close(self) -> None:
        """End the session, and what else belongs to it."""
        if self.hang_up is not None and not self._ended:
            self._hung_up = True
            self.hang_up()
        super().close()

    def ending(self) -> bootstrap.Ending:
        """Return how the command ended; raises SessionRefusedError when it never began."""
        ending = super().ending()
        if ending.returncode != _SSH_FAILED or self._hung_up:
            return ending
        if "open refused by peer" in ending.stderr:
            raise SessionRefusedError(f"the host opens no session: {ending.stderr.strip()}", where=self.where)
        # The command may end with 255, too; a client whose master has gone says nothing, or one of these.
        lost = not ending.stderr.strip() or re.search("UNKNOWN port 65535|mux_client_", ending.stderr)
        return bootstrap.Ending(None, "") if lost else ending


class SshDialer:
    """Reaches a host with OpenSSH's own program.

    ``pauses`` are the seconds before further attempts when the host drops newcomers; ``jitter`` keeps processes that
    were dropped together from coming back together.
    """

    def __init__(
        self,
        spec: SshHost,
        answers: Answers | None = None,
        *,
        pauses: Sequence[float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._spec = spec
        self._answers = answers or Answers(spec.secret_command)
        self._pauses = PAUSES if pauses is None else pauses
        self._sleep = sleep
        self._jitter = jitter
        self._connection: Connection | None = None
        self._late = False
        self.name = address(spec)

    def dial(self) -> Pipe:
        """Log in, unless the last login still stands, and start the satellite; see ``Dialer``."""
        if self._connection is None or not self._connection.stands():
            pauses = (pause * (0.5 + self._jitter()) for pause in self._pauses)
            self._connection = self._patiently(self._log_in, DroppedError, pauses)
        return self._start(self._connection, self._connection.close)

    def open(self) -> Pipe:
        """Open another session on the connection; see ``Dialer``."""
        if self._connection is None:
            raise HostUnreachableError("there is no connection", where=self.name)
        return self._start(self._connection, None)

    def _log_in(self) -> Connection:
        try:
            with contextlib.ExitStack() as undo:
                connection = Connection()
                undo.callback(connection.close)
                Login(self._spec, self._answers, connection.folder).run()
                for path in connection.folder.iterdir():
                    if path.name != "master":
                        path.unlink()  # the log would grow with each session
                undo.pop_all()
        except OSError as error:  # no disk to write to
            raise HostRefusedError(f"can't prepare the login: {error}", where=self.name) from error
        return connection

    def _start(self, connection: Connection, hang_up: Callable[[], object] | None) -> Pipe:
        spec, absent = self._spec, []
        pythons = bootstrap.PYTHONS if spec.python is None else (spec.python,)
        for python in pythons:
            command, before = bootstrap.shell_command(python), b""
            if spec.python or spec.setup:
                command, before = bootstrap.prepared_command(python, spec.setup)
            argv = [*_through(connection.folder), "-T", "host", command]
            session = partial(self._session, argv, hang_up, before)
            try:
                # sshd frees the place of an ended session a little late (MaxSessions).
                return self._patiently(session, SessionRefusedError, _SESSION_PAUSES)
            except bootstrap.NoPythonError as error:
                absent.append(f"  {python}: {error.message}")
        why = "no Python 3.6 or newer was found, which this package needs on the host:\n" + "\n".join(absent)
        hint = "Name another as `python` of the profile's host, or load its module by `setup`."
        raise HostRefusedError(why, where=self.name, hint=hint)

    def _session(self, argv: Sequence[str], hang_up: Callable[[], object] | None, before: bytes) -> Pipe:
        # One start that does not end is a busy host's, perhaps; after two the connection may be dead.
        pipe = SessionPipe(argv, self.name, hang_up if self._late else None)
        self._late = True
        bootstrap.boot(pipe, self.name, _START_TIMEOUT, before)
        self._late, pipe.hang_up = False, hang_up
        return pipe

    def _patiently(self, attempt: Callable[[], _T], passing: type[HostError], pauses: Iterable[float]) -> _T:
        """Return what an attempt gives; while it fails so, and there are pauses left, try again."""
        for pause in pauses:
            try:
                return attempt()
            except passing:
                self._sleep(pause)
        return attempt()
