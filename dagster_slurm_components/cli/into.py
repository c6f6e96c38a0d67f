"""``dg-slurm shell``, ``forward``, ``debug`` and ``stacks``: the way into a job that runs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import click

from dagster_slurm_components.cli import terminal
from dagster_slurm_components.cli.finding import find_job
from dagster_slurm_components.cli.job_rows import state_of
from dagster_slurm_components.errors import DagsterSlurmError, HostUnreachableError, printable
from dagster_slurm_components.hosts.satellite.protocol import FrameError
from dagster_slurm_components.hosts.satellite.relay import Relay
from dagster_slurm_components.hosts.stream import Size, Stream
from dagster_slurm_components.jobs.into import RunningJob, attach_debugger
from dagster_slurm_components.jobs.into import stacks as stacks_of
from dagster_slurm_components.jobs.output import describe
from dagster_slurm_components.jobs.target import target
from dagster_slurm_components.spec.profiles import load_profile

_PAUSE = 5.0
_SLICE = 0.2
_PIECE = 64 * 1024

wait_option = click.option("--wait", is_flag=True, help="Wait until the payload runs.")
rank_option = click.option(
    "--rank", type=click.IntRange(0), help="On the node of this rank.  [default: the first node]"
)


def _ports(context: click.Context, argument: click.Parameter, value: str) -> tuple[int, int]:
    """Read ``8888`` or ``9999:8888``: the port here, and there."""
    words = value.split(":")
    try:
        here, there = int(words[0]), int(words[-1])
    except ValueError:
        here = there = -1
    if len(words) > 2 or not (0 <= here < 65536 and 0 < there < 65536):
        raise click.BadParameter(f"{value!r} is no port such as 8888, or two such as 9999:8888")
    return here, there


@click.command()
@click.argument("job")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@terminal.profile_option
@rank_option
@wait_option
def shell(job: str, command: tuple[str, ...], profile_name: str | None, rank: int | None, wait: bool) -> None:
    """Open a shell in JOB, or run COMMAND there: beside the payload, in its environment and folder.

    JOB is a job's id, a run's id, an asset's key or a run directory, as for `dg-slurm jobs`. The shell is a step of the
    job and shares its CPUs, memory and GPUs; the payload does not notice it. No further login is made.
    """
    running = running_job(job, profile_name, wait=wait)
    size = _size() if sys.stdin.isatty() and sys.stdout.isatty() else None
    with running.run(command, rank=rank, size=size) as stream, _raw(stream if size else None):
        code = _talk(stream)
    sys.exit(code if code >= 0 else 128 - code)


@click.command()
@click.argument("job")
@click.argument("ports", metavar="[LOCAL:]PORT", callback=_ports)
@terminal.profile_option
@rank_option
@wait_option
def forward(job: str, ports: tuple[int, int], profile_name: str | None, rank: int | None, wait: bool) -> None:
    """Let a port of JOB's node be seen here, at 127.0.0.1: a notebook, a dashboard, TensorBoard.

    It leads to what listens on the node's own 127.0.0.1. LOCAL is the port here, the same one by default; 0 takes any
    that is free. Ctrl-C ends it, and so does the end of the job. No further login is made.
    """
    here, there = ports
    running = running_job(job, profile_name, wait=wait)

    def told(port: int) -> str:
        return f"http://127.0.0.1:{port} is port {there} in the job. Ctrl-C ends this, and not the job."

    _forward(running, here, there, rank, told)


@click.command()
@click.argument("job")
@terminal.profile_option
@rank_option
@click.option("--pid", type=click.IntRange(1), help="Which Python of the payload, if there are several.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port here.  [default: any]")
def debug(job: str, profile_name: str | None, rank: int | None, pid: int | None, port: int) -> None:
    """Let a debugger into JOB's payload, which runs: debugpy, seen here at 127.0.0.1; Ctrl-C ends the way there.

    The payload is Python, with `debugpy` in its environment and `gdb` on its node. It goes on as before until the
    debugger stops it. What is printed is VS Code's launch.json. debugpy asks for no password: whoever is on the node
    may connect to it, and act as you; use it where nobody else is.
    """
    running = running_job(job, profile_name, wait=False)
    with _job_goes_on():
        there, work = attach_debugger(running, rank=rank, pid=pid)

    def told(port: int) -> str:
        folder = {"localRoot": "${workspaceFolder}", "remoteRoot": work}
        way = {"connect": {"host": "127.0.0.1", "port": port}, "pathMappings": [folder], "justMyCode": False}
        entry = {"name": f"job {running.handle.job_id}", "type": "debugpy", "request": "attach", **way}
        return json.dumps({"version": "0.2.0", "configurations": [entry]}, indent=2)

    _forward(running, port, there, rank, told)


def _forward(
    running: RunningJob, here: int, there: int, rank: int | None, told: Callable[[int], str]
) -> None:
    """Lead a port here to one there until the job ends or Ctrl-C; ``told`` says what is printed of the port here."""
    with _listening(here) as listener, running.relay(there, rank=rank) as stream:

        def write(data: bytes) -> None:
            try:
                stream.write(data)
            except HostUnreachableError as error:
                raise ConnectionError from error

        def tell(error: str) -> None:
            click.echo(f"no connection to port {there} of the job's node: {error}", err=True)

        read = partial(stream.output, errors=sys.stderr.buffer)
        relay = Relay(read, write, told=tell)
        threading.Thread(target=_accept, args=(listener, relay), daemon=True).start()
        click.echo(told(listener.getsockname()[1]))
        with contextlib.suppress(KeyboardInterrupt):
            with contextlib.suppress(FrameError), _job_goes_on():
                _in_slices(relay.serve)
            if not running.ended:
                raise DagsterSlurmError(
                    f"the way into job {running.handle.job_id} has ended; the job goes on"
                )
            click.echo(f"Job {running.handle.job_id} has ended.", err=True)


@click.command()
@click.argument("job")
@terminal.profile_option
def stacks(job: str, profile_name: str | None) -> None:
    """Say where each process of JOB's payload stands, on all of its nodes.

    Of Python the frames, if py-spy is in the payload's environment; else, and of all other programs, what the kernel
    tells of their threads. The payload does not notice it.
    """
    with _job_goes_on():
        click.echo(printable(stacks_of(running_job(job, profile_name, wait=False))))


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        hint = f"Name another port of this machine before it: {port + 1}:PORT, or 0:PORT for any."
        raise DagsterSlurmError(f"can't listen on 127.0.0.1:{port}: {error.strerror}", hint=hint) from error


def _accept(listener: socket.socket, relay: Relay) -> None:
    with contextlib.suppress(OSError):  # closed
        for number in itertools.count():
            relay.add(number, listener.accept()[0])


def running_job(job: str, profile_name: str | None, *, wait: bool) -> RunningJob:
    """Return a job whose payload runs, and say which it is.

    Raises:
        DagsterSlurmError: It has ended, or waits and we shall not.
    """
    place = target(load_profile(profile_name, start=Path.cwd()))
    folder, seen = find_job(place, job, whole=False)
    news = ""
    while True:
        if seen is None or not seen.alive:
            raise DagsterSlurmError(
                f"job {folder.ledger.job_id or job} has ended already: {state_of(seen)}",
                where=folder.path,
                hint=f"`dg-slurm jobs logs {folder.ledger.job_id or job}` prints what it wrote.",
            )
        status = seen.evidence.status
        said = describe(seen.handle.job_id, seen.observation, status)
        if status is not None and status.launched is not None and status.exit_code is None:
            click.echo(f"{said or 'Job ' + seen.handle.job_id} (step {folder.step})", err=True)
            return RunningJob(place, seen.handle, status)
        if not wait:
            text = said or f"Job {seen.handle.job_id} has not started yet."
            raise DagsterSlurmError(text, hint="`--wait` waits until its payload runs.")
        if said != news:
            click.echo(said, err=True)
            news = said
        time.sleep(_PAUSE)
        folder, seen = find_job(place, job, whole=False)


def _size() -> Size:
    columns, rows = os.get_terminal_size(sys.stdin.fileno())
    return Size(rows, columns)


@contextlib.contextmanager
def _raw(stream: Stream | None) -> Iterator[None]:
    """Let each key go to the far terminal as it is, and that follow the size of ours."""
    if stream is None:
        yield
        return
    before = termios.tcgetattr(0)
    handler = signal.signal(signal.SIGWINCH, lambda *_: stream.resize(_size()))
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)


def _talk(stream: Stream) -> int:
    """Hand on what is typed and written until the program has ended; return its exit code."""
    threading.Thread(target=_type, args=(stream,), daemon=True).start()
    with _job_goes_on():
        _in_slices(partial(_print, stream))
    return stream.code or 0


def _print(stream: Stream) -> None:
    outputs = {"out": sys.stdout.buffer, "err": sys.stderr.buffer}
    while (piece := stream.read()) is not None:
        name, data = piece
        outputs[name].write(data)
        outputs[name].flush()


def _in_slices(act: Callable[[], None]) -> None:
    """Do what waits for a connection, so that Ctrl-C is heard at once.

    A signal that comes while a thread gives up the interpreter's lock, before a system call, is only marked: the call
    waits on (seen with CPython 3.13). Who waits for short times sees the mark.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 -- raised where it is waited for
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    while not futures.wait([done], timeout=_SLICE).done:
        pass
    done.result()


@contextlib.contextmanager
def _job_goes_on() -> Iterator[None]:
    try:
        yield
    except HostUnreachableError as error:
        raise DagsterSlurmError(f"{error.message}; the job goes on", where=error.where) from error


def _type(stream: Stream) -> None:
    with contextlib.suppress(HostUnreachableError, OSError, ValueError):  # told where it is read
        while data := os.read(sys.stdin.fileno(), _PIECE):
            stream.write(data)
        stream.end()
