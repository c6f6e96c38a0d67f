"""The agent: accepts the processes of this user and forwards their calls to the hosts, each by its one connection.

``python -m dagster_slurm_components.hosts.agent.server`` serves until it is idle.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dagster_slurm_components.errors import HostError, HostRefusedError, HostUnreachableError
from dagster_slurm_components.hosts import wire
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.answers import INTERACTIVE, Answers, Prompt
from dagster_slurm_components.hosts.attempts import NotedDialer
from dagster_slurm_components.hosts.base import Pipe, Reply
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite.leases import CANCEL_WANTED, FOLLOWING
from dagster_slurm_components.hosts.satellite.locks import acquire
from dagster_slurm_components.hosts.satellite.protocol import FrameError, encode_frame, read_frame
from dagster_slurm_components.hosts.ssh import SshDialer, same_login
from dagster_slurm_components.hosts.wire import SocketPipe
from dagster_slurm_components.spec.hosts import SshHost

IDLE = 900.0
"""Seconds without clients after which the agent ends, unless it holds a login that a person made."""

_IDLE = "DAGSTER_SLURM_AGENT_IDLE"
"""Another number of these seconds."""

_LOOK = 1.0
_PIECE = 256 * 1024
_TURNS = 16
"""Calls of one client that may be under way at once; its further ones wait, and not those of other clients."""

_WATCHED = 120.0
"""Seconds after which a job whose lease nobody renews counts as watched no more."""
_LASTING = ("host", "stream")
_LIVING = (None, FOLLOWING, CANCEL_WANTED)


class SharedHost(RemoteHost):
    """One host as the agent holds it: the connection, the login's secrets, and what ``dg-slurm status`` counts."""

    def __init__(self, spec: SshHost, folder: Path) -> None:
        self._answers = Answers(spec.secret_command)
        dialer = SshDialer(spec, self._answers, pauses=())
        super().__init__(NotedDialer(dialer, folder), interval=spec.reconnect_interval)
        steps = {*spec.login, *(step for hop in spec.jump for step in hop.login)}
        self._interactive = bool(INTERACTIVE & steps)
        self._lock = threading.Lock()
        self._calls = 0
        self._queries = 0
        self._contact: float | None = None
        self._watched: dict[str, float] = {}

    @property
    def holds_a_login(self) -> bool:
        """Whether a connection stands for which a person had to log in."""
        return self._interactive and self.connected

    def call(self, op: str, params: Mapping[str, Any], blob: bytes = b"", *, timeout: float = 60.0) -> Reply:
        """Do one operation, and count it."""
        followed = [run_dir for run_dir, *_ in params.get("leases", [])]
        with self._lock:
            self._watched.update(dict.fromkeys(followed, time.monotonic()))
        reply = super().call(op, params, blob, timeout=timeout)
        with self._lock:
            if op == "change_lease" and params.get("state") not in _LIVING:
                self._watched.pop(params["run_dir"], None)
            self._calls += 1
            self._queries += bool(params.get("budget") and reply.result.get("fresh", True))
            self._contact = time.time()
        return reply

    def login(self, person: Callable[[Prompt], str]) -> bool:
        """Connect, asking a person; return whether a connection stood already."""
        already = self.connected
        if not already:
            with self._answers.asking(person):
                self.connect()
        return already

    def status(self) -> dict[str, Any]:
        """Return what is known of the host now."""
        oldest = time.monotonic() - _WATCHED
        with self._lock:
            self._watched = {path: when for path, when in self._watched.items() if when > oldest}
            return {
                "host": self.name,
                "connected": self.connected,
                "failure": str(self.failure) if self.failure else None,
                "calls": self._calls,
                "queries": self._queries,
                "jobs": len(self._watched),
                "last_contact": self._contact,
            }


class Agent:
    """Serves clients until it was without them for ``idle`` seconds, or is told to stop.

    Its socket lies in ``folder``, which is closed to others.
    """

    def __init__(self, folder: Path, *, idle: float = IDLE) -> None:
        self._folder = folder
        self._idle = idle
        self._began = time.time()
        self._lock = threading.Lock()
        self._hosts: dict[str, SharedHost] = {}
        self._logins: dict[str, str] = {}
        self._clients: dict[SocketPipe, str] = {}
        self._used = time.monotonic()
        self._stopping = threading.Event()
        self._wants: dict[str, Callable[[SocketPipe, dict[str, Any]], None]] = {
            "host": self._forward,
            "stream": self._stream,
            "login": self._login,
            "status": self._status,
            "stop": self._stop,
        }

    def serve(self) -> bool:
        """Serve; return False at once when another agent does already."""
        release = acquire(os.fsencode(self._folder / "agent.lock"))
        if release is None:
            return False
        address = self._folder / "socket"
        address.unlink(missing_ok=True)  # left by one that was killed: we hold the lock
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(_LOOK)
        before = os.umask(0o177)
        try:
            listener.bind(str(address))
        finally:
            os.umask(before)
        listener.listen(256)
        try:
            while not self._stopping.is_set() and not self._idle_too_long():
                try:
                    self._accept(listener.accept()[0])
                except TimeoutError:
                    pass
                except (OSError, RuntimeError):  # no file or thread is left; logins outlive a client
                    self._stopping.wait(_LOOK)
        finally:
            # The path first: who comes now starts a new agent instead of talking to one that leaves.
            address.unlink(missing_ok=True)
            listener.close()
            for shared in self._hosts.values():
                shared.close()
            release()
        return True

    def _accept(self, connection: socket.socket) -> None:
        # Where no thread starts the connection ends with this function, and the client tries again.
        threading.Thread(target=self._client, args=(SocketPipe(connection),), daemon=True).start()

    def _idle_too_long(self) -> bool:
        with self._lock:
            if self._clients or any(shared.holds_a_login for shared in self._hosts.values()):
                self._used = time.monotonic()
            return time.monotonic() - self._used > self._idle

    def _client(self, pipe: SocketPipe) -> None:
        try:
            asked = pipe.hear()
            want = str(asked.get("want"))
            with self._lock:
                self._clients[pipe] = want
            self._check(asked)
            _use_ssh_agent(str(asked.get("ssh_auth_sock", "")))
            self._wants[want](pipe, asked)
        except HostError as error:
            with contextlib.suppress(OSError):
                pipe.say(wire.failure(error))
        except OSError:
            pass  # the client has gone
        finally:
            with self._lock:
                self._clients.pop(pipe, None)
                self._used = time.monotonic()
            pipe.close()

    def _check(self, asked: dict[str, Any]) -> None:
        """Raise unless the client is of our version; an agent that nobody else uses makes room for a new one."""
        if asked.get("version") == place.version() or asked["want"] in ("stop", "status"):
            return
        with self._lock:
            others = [want for want in self._clients.values() if want in _LASTING]
            busy = len(others) > (asked["want"] in _LASTING)
        what = f"the agent (pid {os.getpid()}) is of version {place.version()}, not {asked.get('version')}"
        if busy:
            raise HostRefusedError(what, hint="End what still uses it, or run: dg-slurm agent stop")
        self._stopping.set()
        raise HostUnreachableError(f"{what}; it makes room now")

    def _shared(self, text: str) -> SharedHost:
        """Return the host that a spec means; of two spellings the first one's pauses and timeouts hold."""
        login = self._logins.get(text)
        if login is None:  # asked of ssh once, not by each process that connects
            login = self._logins[text] = same_login(SshHost.model_validate_json(text))
        with self._lock:
            if login not in self._hosts:
                self._hosts[login] = SharedHost(SshHost.model_validate_json(text), self._folder)
            return self._hosts[login]

    def _forward(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        """Forward a client's calls until it ends."""
        shared = self._shared(asked["host"])
        writing = threading.Lock()

        def answer(request: dict[str, Any], blob: bytes) -> None:
            frame = _reply(shared, request, blob)
            with writing, contextlib.suppress(OSError):  # the client may have gone
                pipe.write(frame)

        pipe.say({"ok": True})
        turns = ThreadPoolExecutor(_TURNS, thread_name_prefix="call")
        with contextlib.suppress(FrameError, OSError):  # the client ended within a frame
            while (frame := read_frame(pipe.read)) is not None:
                turns.submit(answer, *frame)
        turns.shutdown(wait=False)

    def _stream(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        """Open a further session for a client, and hand on the bytes of both until either ends."""
        session = self._shared(asked["host"]).open()
        try:
            pipe.say({"ok": True})
            threading.Thread(target=_copy, args=(session, pipe), daemon=True).start()
            _copy(pipe, session)
        finally:
            session.close()

    def _login(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        def person(prompt: Prompt) -> str:
            pipe.say({"ok": True, "prompt": vars(prompt)})
            try:
                return str(pipe.hear()["answer"])
            except OSError as error:
                raise HostRefusedError("nobody answered", where=prompt.host) from error

        shared = self._shared(asked["host"])
        pipe.say({"ok": True, "already": shared.login(person), "host": shared.name})

    def _status(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        with self._lock:
            hosts = list(self._hosts.values())
            clients = sum(want == "host" for want in self._clients.values())
        about = {"pid": os.getpid(), "version": place.version(), "since": self._began, "clients": clients}
        pipe.say({"ok": True, **about, "hosts": [shared.status() for shared in hosts]})

    def _stop(self, pipe: SocketPipe, asked: dict[str, Any]) -> None:
        self._stopping.set()
        pipe.say({"ok": True, "pid": os.getpid()})


def _use_ssh_agent(address: str) -> None:
    """Let logins ask a client's ssh agent where ours has gone, as with the terminal that the first client ran in."""
    if os.path.exists(address) and not os.path.exists(os.environ.get("SSH_AUTH_SOCK", "")):
        os.environ["SSH_AUTH_SOCK"] = address


def _copy(source: Pipe, sink: Pipe) -> None:
    with contextlib.suppress(OSError):  # the other side has gone
        while data := source.read(_PIECE):
            sink.write(data)
    sink.close()


def _reply(shared: SharedHost, request: dict[str, Any], blob: bytes) -> bytes:
    """Do a client's call and return the reply's frame."""
    number = {"id": request.get("id")}
    try:
        reply = shared.call(request["op"], request["params"], blob, timeout=float(request["timeout"]))
        return encode_frame({**number, "ok": True, "result": dict(reply.result)}, reply.blob)
    except HostError as error:
        told = error
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        told = HostRefusedError(f"the agent can't do the call: {error!r}")
    return encode_frame({**number, **wire.failure(told)})


def main() -> None:
    """Run the agent. A terminal that closes, or a Ctrl-C meant for another program, does not end it."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    Agent(place.folder(), idle=float(os.environ.get(_IDLE, IDLE))).serve()
    os._exit(0)  # not waiting for calls that hang


if __name__ == "__main__":
    main()
