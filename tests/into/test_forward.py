"""`dg-slurm forward`: a real HTTP server in a job, seen from here."""

from __future__ import annotations

import hashlib
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from into.conftest import Place, call, command
from waiting import PATIENCE, eventually

from dagster_slurm_components.hosts.satellite.relay import Relay

SIZE = 6 * 1024 * 1024
SERVER = """
    import hashlib, http.server, os, socket, threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            number = int(self.path.strip("/"))
            data = (hashlib.sha256(b"%d" % number).digest() * (SIZE // 32)) if number % 2 else b"small %d" % number
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("port", server.server_port, flush=True)
    print("begun", flush=True)
    while not os.path.exists(os.environ["GATE"]):
        threading.Event().wait(0.2)
    print("ended", flush=True)
""".replace("SIZE", str(SIZE))


def served(place: Place, **script: object) -> tuple[str, str]:
    """Submit a job with a server; return its id and the port."""
    place.project.write("serves.py", SERVER)
    job = place.begun(place.submit(payload="serves.py", **script))
    return job, call("logs", job).stdout.split()[1]


@contextmanager
def forwarding(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `dg-slurm forward`; yield it and the address that it names."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command("forward", *words), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), line + str(process.communicate(timeout=PATIENCE))
            yield process, line.split()[0]
        finally:
            process.kill()


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        data: bytes = answer.read()
    return data


def content(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (SIZE // 32) if number % 2 else b"small %d" % number


@pytest.mark.slow
def test_a_server_in_a_job_behind_two_factors(far: Place) -> None:
    job, port = served(far)
    with forwarding("works", f"0:{port}") as (process, address), ThreadPoolExecutor(10) as pool:
        numbers = range(20)  # more at once than sshd has sessions
        assert list(pool.map(get, [f"{address}/{number}" for number in numbers])) == [
            content(number) for number in numbers
        ]
        assert far.one_login()
        far.ended_well(job)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert f"Job {job} has ended." in process.stderr.read()
    assert far.one_login()


@pytest.mark.slow
def test_ctrl_c_and_a_lost_connection_leave_the_job_alone(far: Place) -> None:
    job, port = served(far)
    with forwarding(job, f"0:{port}") as (process, address):
        assert get(f"{address}/4") == b"small 4"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    with forwarding(job, f"0:{port}") as (process, address):
        assert get(f"{address}/2") == b"small 2"
        assert far.server is not None
        far.server.cut()
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        assert "the job goes on" in process.stderr.read()
    steps = ["squeue", "--steps", f"--jobs={job}", "--noheader", "--format=%i"]
    eventually(
        lambda: (
            subprocess.run(steps, capture_output=True, text=True, check=True).stdout.split()
            == [f"{job}.batch"]
        ),
        "the job has no step of ours",
    )


def test_on_this_machine(near: Place) -> None:
    job, port = served(near)
    with forwarding("works", f"0:{port}") as (_, address):
        assert get(f"{address}/3") == content(3)
        taken = address.rpartition(":")[2]
        told = call("forward", job, f"{taken}:{port}", status=1).output
        assert f"can't listen on 127.0.0.1:{taken}" in told
        assert listens_on_loopback_alone(int(taken))
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    with forwarding(job, f"0:{nobody}") as (process, address):
        with pytest.raises(OSError, match=r".*"):
            get(address)
        assert process.stderr is not None
        assert "Connection refused" in "".join(process.stderr.readline() for _ in range(2))
    near.ended_well(job)


def listens_on_loopback_alone(port: int) -> bool:
    listed = subprocess.run(
        ["ss", "--listening", "--tcp", "--numeric", "--no-header", f"sport = :{port}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split()[3] for line in listed.stdout.splitlines()] == [f"127.0.0.1:{port}"]


@pytest.mark.parametrize("ports", ["", "x", "0", "1:2:3", "70000", "8888:", "-1:8888"])
def test_what_is_no_port_is_refused(ports: str) -> None:
    assert "is no port" in call("forward", "works", "--", ports, status=2).output


def serve(relay: Relay) -> None:
    """Serve until the test is over, however its sockets end."""
    with suppress(OSError):
        relay.serve()


def test_who_reads_slowly_does_not_hold_up_the_others() -> None:
    """Two relays, joined by sockets: a connection that nobody reads, and one beside it."""
    one, other = socket.socketpair()
    server = socket.create_server(("127.0.0.1", 0))
    near = Relay(one.recv, one.sendall)
    far = Relay(other.recv, other.sendall, lambda: socket.create_connection(server.getsockname()))
    for relay in (near, far):
        threading.Thread(target=serve, args=(relay,), daemon=True).start()
    ends = []
    for number in range(2):
        ours, theirs = socket.socketpair()
        near.add(number, theirs)
        ends.append((ours, server.accept()[0]))
    (slow, flood), (quick, echo) = ends
    stopped = threading.Event()

    def much() -> None:
        with suppress(OSError):
            while True:
                flood.sendall(b"x" * 65536)
        stopped.set()

    threading.Thread(target=much, daemon=True).start()
    for _ in range(100):
        quick.sendall(b"ping")
        assert echo.recv(4) == b"ping"
        echo.sendall(b"pong")
        assert quick.recv(4) == b"pong"
    slow.close()  # so that nobody ever reads it: the far end hears of that
    assert stopped.wait(PATIENCE)
    for each in (quick, echo, flood, one, other, server):
        each.close()


def test_what_a_closed_connection_left_unread_is_let_go() -> None:
    """The far end has more to send than it may, and nothing more comes: it ends all the same."""
    one, other = socket.socketpair()
    flood, kept = socket.socketpair()
    near = Relay(one.recv, one.sendall)
    far = Relay(other.recv, other.sendall, lambda: kept)
    for relay in (near, far):
        threading.Thread(target=serve, args=(relay,), daemon=True).start()
    slow, theirs = socket.socketpair()
    near.add(0, theirs)
    flood.settimeout(3)
    with suppress(TimeoutError):  # until all buffers on the way are full
        while True:
            flood.sendall(b"x" * 65536)
    slow.close()
    eventually(lambda: kept.fileno() == -1, "the far end closes its connection")
    for each in (flood, one, other):
        each.close()
