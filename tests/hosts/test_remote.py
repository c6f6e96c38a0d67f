import json
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from satellite_fixture import HOSTILE
from subprocess_dialer import SubprocessDialer
from waiting import PATIENCE

from dagster_slurm_components.errors import (
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    SatelliteError,
)
from dagster_slurm_components.hosts import channel
from dagster_slurm_components.hosts.channel import Channel
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.remote import RemoteHost
from dagster_slurm_components.hosts.satellite import operations, protocol


class MemoryPipe:
    """A pipe whose other end is a function in the test."""

    def __init__(self, answer) -> None:
        self._answer = answer
        self._incoming: queue.Queue[bytes] = queue.Queue()
        self._rest = b""
        self._written = b""
        self.closed = threading.Event()

    def feed(self, data: bytes) -> None:
        self._incoming.put(data)

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = self._incoming.get()
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def write(self, data: bytes) -> None:
        if self.closed.is_set():
            raise OSError("Socket is closed")
        header = json.loads(data[8 : 8 + int.from_bytes(data[:4], "big")])
        reply = self._answer(header)
        if reply is not None:
            self.feed(reply)

    def close(self) -> None:
        self.closed.set()
        self.feed(b"")


def ok(header, **result) -> bytes:
    return protocol.encode_frame({"id": header["id"], "ok": True, "result": result})


class FakeDialer:
    name = "ada@login.example.org:22"

    def __init__(self, *outcomes) -> None:
        self.outcomes = list(outcomes)
        self.dials = 0

    def dial(self):
        self.dials += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def host_of(*outcomes) -> tuple[RemoteHost, FakeDialer, Clock]:
    dialer, clock = FakeDialer(*outcomes), Clock()
    return RemoteHost(dialer, clock=clock, jitter=lambda: 0.5), dialer, clock


@pytest.fixture
def subprocess_host():
    host = RemoteHost(SubprocessDialer())
    yield host
    host.close()


def test_answers_find_their_calls_in_any_order():
    held = []

    def answer(header):
        held.append(header)
        if len(held) == 3:
            for one in reversed(held):
                pipe.feed(ok(one, op=one["op"]))

    pipe = MemoryPipe(answer)
    opened = Channel(pipe, "h")
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda op: opened.call(op, {}, b"", 10).result["op"], ["a", "b", "c"]))
    assert replies == ["a", "b", "c"]
    opened.close()


UNTIL_OPEN = ["sh", "-c", 'echo >>"$0.begun"; while [ ! -e "$0" ]; do sleep 0.05; done']
"""Runs until the file that is named behind it is there; adds a line to a file beside it when it begins."""


def test_a_hanging_command_delays_no_other_call(subprocess_host, tmp_path):
    remote = Satellite(subprocess_host)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(1) as pool:
        try:
            slow = pool.submit(remote.run, [*UNTIL_OPEN, str(gate)])
            for _ in range(20):
                remote.read([])
            assert not slow.done()
        finally:
            gate.touch()
        assert slow.result().returncode == 0


def test_many_threads_share_one_connection(subprocess_host):
    remote = Satellite(subprocess_host)
    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(lambda n: remote.run(["echo", str(n)]).stdout, range(100)))
    assert outputs == [f"{n}\n".encode() for n in range(100)]


def test_a_busy_satellite_still_answers_ping(subprocess_host, tmp_path):
    remote = Satellite(subprocess_host)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(40) as pool:  # more than the satellite has workers
        try:
            slow = [pool.submit(remote.run, [*UNTIL_OPEN, str(gate)]) for _ in range(40)]
            begun = tmp_path / "gate.begun"
            while not begun.exists() or begun.read_text().count("\n") < operations.WORKERS:
                assert not any(call.done() for call in slow)
                time.sleep(0.02)
            subprocess_host.call("ping", {})
            assert not any(call.done() for call in slow)
        finally:
            gate.touch()
        assert {call.result().returncode for call in slow} == {0}


def test_a_loss_wakes_all_who_wait():
    pipe = MemoryPipe(lambda header: None)
    host, _, _ = host_of(pipe)
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(host.call, "run", {}) for _ in range(5)]
        time.sleep(0.1)
        pipe.feed(b"")
        for call in calls:
            with pytest.raises(HostUnreachableError, match="the satellite ended"):
                call.result(PATIENCE)


def test_after_a_loss_the_next_call_dials_again():
    first, second = MemoryPipe(ok), MemoryPipe(ok)
    host, dialer, clock = host_of(first, second)
    host.call("a", {})
    host.call("b", {})
    assert dialer.dials == 1
    first.feed(b"")
    assert first.closed.wait(PATIENCE)
    with pytest.raises(HostUnreachableError, match=r"lost \(next attempt in 16 s\)"):
        host.call("c", {})
    clock.now += 19
    host.call("c", {})
    assert dialer.dials == 2


@pytest.mark.parametrize("garbage", [b"\xff" * 16, b"Connection reset by administrator"])
def test_garbage_on_the_line_is_a_loss_with_its_reason(garbage):
    pipe = MemoryPipe(lambda header: garbage)
    host, _, _ = host_of(pipe)
    with pytest.raises(HostUnreachableError, match=r"corrupt|not JSON|inside a frame"):
        host.call("a", {}, timeout=5)
    assert pipe.closed.wait(PATIENCE)


def test_a_satellite_that_received_garbage_says_so(tmp_path):
    pipe = SubprocessDialer().dial()
    pipe.write(b"\xff" * 8)
    opened = Channel(pipe, "h")
    with pytest.raises(HostUnreachableError, match="over the limits"):
        opened.call("ping", {}, b"", 5)


def test_an_answer_that_stays_out_is_told_and_a_good_connection_kept():
    pipe = MemoryPipe(lambda header: ok(header) if header["op"] == "ping" else None)
    host, dialer, _ = host_of(pipe)
    with pytest.raises(HostUnreachableError, match=r"no answer to 'run' within 0\.1 s") as caught:
        host.call("run", {}, timeout=0.1)
    assert "not known" in str(caught.value)
    host.call("ping", {})
    assert dialer.dials == 1
    assert not pipe.closed.is_set()


def test_a_dead_connection_is_found_out_and_given_up(monkeypatch):
    monkeypatch.setattr(channel, "_PROBE", 0.1)
    dead = MemoryPipe(lambda header: None)
    host, dialer, clock = host_of(dead, MemoryPipe(ok))
    with pytest.raises(HostUnreachableError):
        host.call("run", {}, timeout=0.1)
    assert dead.closed.is_set()
    clock.now += 20
    host.call("run", {})
    assert dialer.dials == 2


def test_a_host_that_is_gone_is_looked_for_at_a_steady_pace_and_told_meanwhile():
    down = HostUnreachableError("connection refused", where="h", hint="look at it")
    host, dialer, clock = host_of(down, down, down, MemoryPipe(ok))
    pauses = []
    for _ in range(3):
        with pytest.raises(HostUnreachableError):
            host.call("a", {})
        dials, since = dialer.dials, clock.now
        with pytest.raises(HostUnreachableError, match=r"connection refused \(next attempt in") as caught:
            host.call("a", {})
        assert (caught.value.where, caught.value.hint) == ("h", "look at it")
        assert dialer.dials == dials, "nobody knocks meanwhile"
        clock.now = host._not_before
        pauses.append(clock.now - since)
    assert pauses == [16.25] * 3
    host.call("a", {})


def test_a_refusal_pauses_long_and_stays_a_refusal():
    host, _, clock = host_of(HostRefusedError("unknown key", where="h"), MemoryPipe(ok))
    with pytest.raises(HostRefusedError):
        host.call("a", {})
    clock.now += 30
    with pytest.raises(HostRefusedError, match=r"next attempt in [23] s"):
        host.call("a", {})
    clock.now += 3
    host.call("a", {})


def test_refusals_pause_longer_and_longer():
    no = HostRefusedError("unknown key", where="h")
    host, _, clock = host_of(no, no, no, MemoryPipe(ok))
    pauses = []
    for _ in range(3):
        with pytest.raises(HostRefusedError):
            host.call("a", {})
        pauses.append(host._not_before - clock.now)
        clock.now = host._not_before
    assert pauses == [32.5, 65.0, 65.0]
    host.call("a", {})


def test_many_threads_make_one_attempt():
    gate = threading.Event()

    class SlowDialer(FakeDialer):
        def dial(self):
            gate.wait(PATIENCE)
            return super().dial()

    dialer = SlowDialer(MemoryPipe(ok))
    host = RemoteHost(dialer)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(host.call, "a", {}) for _ in range(8)]
        time.sleep(0.1)
        gate.set()
        for call in calls:
            call.result(PATIENCE)
    assert dialer.dials == 1


def test_close_ends_the_connection_and_a_later_call_makes_a_new_one():
    pipes = [MemoryPipe(ok), MemoryPipe(ok)]
    host, dialer, _ = host_of(*pipes)
    host.close()
    host.call("a", {})
    host.close()
    assert pipes[0].closed.is_set()
    host.call("a", {})
    assert dialer.dials == 2


def test_too_large_a_call_is_refused_and_harms_nobody(subprocess_host, monkeypatch):
    subprocess_host.call("ping", {})
    monkeypatch.setattr(protocol, "MAX_BLOB", 10)
    with pytest.raises(SatelliteError) as caught:
        subprocess_host.call("put", {"path": "/x"}, b"x" * 11)
    assert caught.value.code == "too_large"
    subprocess_host.call("ping", {})


def test_a_fault_inside_the_satellite_is_an_answer(subprocess_host):
    with pytest.raises(SatelliteError, match="Traceback") as caught:
        subprocess_host.call("alive", {"processes": [["not a number", "x"]]})
    assert caught.value.code == "internal"
    assert 'File "dagster_slurm_components/hosts/satellite/processes.py", line' in caught.value.message
    subprocess_host.call("ping", {})


def test_undecodable_output_arrives(subprocess_host):
    name = HOSTILE[-1]
    with pytest.raises(SatelliteError) as caught:
        subprocess_host.call("disk", {"path": f"/{name}"})
    assert name in caught.value.message


def test_the_satellite_ends_when_its_input_does():
    pipe = SubprocessDialer().dial()
    pipe.close()
    assert pipe.process.returncode == 0  # type: ignore[attr-defined]


def test_f12_where_a_person_must_log_in_no_attempt_of_ours_is_announced():
    asks = LoginRequiredError("the login asks for otp", where="ada@login.example.org:22")
    remote = RemoteHost(FakeDialer(asks))
    for _ in range(2):
        with pytest.raises(LoginRequiredError) as caught:
            remote.call("ping", {})
        assert caught.value.message == "the login asks for otp"
