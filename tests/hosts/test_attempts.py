"""What one process fails to reach, the others of the machine leave alone; and whoever waits can be seen."""

from __future__ import annotations

import stat
from pathlib import Path

import dagster as dg
import pytest

from dagster_slurm_components import parked_hosts_sensor
from dagster_slurm_components.errors import (
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    UnknownNameError,
)
from dagster_slurm_components.hosts.agent import place
from dagster_slurm_components.hosts.attempts import FORGOTTEN, NotedDialer, failing, note_waiting
from dagster_slurm_components.hosts.channel import Pipe
from dagster_slurm_components.hosts.connect import connect
from dagster_slurm_components.spec.hosts import SshHost

LOST = HostUnreachableError("no route", where="me@far:22")
LOGIN = LoginRequiredError("the login asks for otp", where="me@far:22", hint="dg-slurm login PROFILE")


class Scripted:
    """A dialer whose failures are given; then it succeeds."""

    name = "me@far:22"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.dialed = 0

    def dial(self) -> Pipe:
        self.dialed += 1
        if self.errors:
            raise self.errors.pop(0)
        return object()  # type: ignore[return-value]

    def open(self) -> Pipe:
        return self.dial()


class Machine:
    """Processes of one machine, with a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_800_000_000.0

    def process(self, dialer: Scripted, interval: float = 15.0) -> NotedDialer:
        return NotedDialer(dialer, self.folder, interval=interval, clock=self.clock)

    def clock(self) -> float:
        return self.now


def test_a_full_disk_keeps_nobody_from_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path)

    def full(*args: object, **how: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dagster_slurm_components.hosts.attempts.write_json", full)
    monkeypatch.setattr(Path, "touch", full)
    process = machine.process(Scripted(LOST), interval=0.0)
    with pytest.raises(HostUnreachableError, match="no route"):
        process.dial()
    assert process.dial() is not None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_one_process_failed_to_reach_the_others_leave_alone_for_a_while(machine: Machine) -> None:
    first, second = Scripted(LOST), Scripted()
    with pytest.raises(HostUnreachableError, match="no route"):
        machine.process(first).dial()
    for _ in range(14):
        machine.now += 1
        with pytest.raises(HostUnreachableError, match=r"no route \(so another process was told; next"):
            machine.process(second).dial()
    assert second.dialed == 0
    machine.now += 1
    assert machine.process(second).dial()
    assert failing(machine.folder, clock=machine.clock) == []


def test_processes_that_reach_their_host_do_not_wait_for_each_other(machine: Machine) -> None:
    for _ in range(5):
        assert machine.process(Scripted()).dial()


def test_a_login_that_nobody_answered_keeps_nobody_off(machine: Machine) -> None:
    with pytest.raises(LoginRequiredError):
        machine.process(Scripted(LOGIN)).dial()
    answered = Scripted()
    machine.process(answered).dial()
    assert answered.dialed == 1


def test_a_clock_that_was_set_back_locks_nobody_out(machine: Machine) -> None:
    with pytest.raises(HostRefusedError):
        machine.process(Scripted(HostRefusedError("no"))).dial()
    machine.now -= 3600
    machine.process(Scripted()).dial()


def test_the_agent_dials_whenever_it_sees_fit_but_writes_it_down(machine: Machine) -> None:
    agent = Scripted(LOST, LOST)
    for _ in range(2):
        with pytest.raises(HostUnreachableError):
            machine.process(agent, interval=0).dial()
        machine.now += 100
    assert failing(machine.folder, clock=machine.clock) == [], "who only tried it waits for nothing"
    note_waiting(machine.folder, "me@far:22", "leo", clock=machine.clock)
    (found,) = failing(machine.folder, clock=machine.clock)
    assert (found.host, found.error.message) == ("me@far:22", "no route")
    assert (found.tried - found.since, machine.now - found.tried) == (100, 100)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in machine.folder.iterdir())
    machine.now += FORGOTTEN
    assert failing(machine.folder, clock=machine.clock) == [], "whoever waited has gone"


def test_the_sensor_tells_who_is_waited_for_once_and_asks_no_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(place.FOLDER, str(tmp_path))
    tmp_path.chmod(0o700)
    notes: list[str] = []
    sensor = parked_hosts_sensor(notify=notes.append)
    instance = dg.DagsterInstance.ephemeral()

    def tick(cursor: str | None) -> tuple[str, str | None]:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        said = sensor(context)
        assert isinstance(said, dg.SkipReason)
        return str(said.skip_message), context.cursor

    quiet, cursor = tick(None)
    assert quiet == "No step of this machine waits for a host."
    with pytest.raises(LoginRequiredError):
        NotedDialer(Scripted(LOGIN), tmp_path).dial()
    assert tick(cursor)[0] == quiet, "a person's `doctor` is no step"
    note_waiting(tmp_path, "me@far:22", "leo")
    for _ in range(3):
        told, cursor = tick(cursor)
        assert told.startswith("Steps wait for me@far:22 since 2")
        assert told.endswith(": the login asks for otp. dg-slurm login leo")
    assert notes == [told]
    NotedDialer(Scripted(), tmp_path).dial()
    assert tick(cursor)[0] == quiet


def test_a_name_that_nobody_knows_is_a_mistake_until_it_was_once_reached(machine: Machine) -> None:
    unknown = UnknownNameError("can't connect: Name or service not known", where="me@far:22")
    with pytest.raises(HostRefusedError, match="not known") as caught:
        machine.process(Scripted(unknown), interval=0).dial()
    assert "Correct the hostname" in str(caught.value)
    machine.process(Scripted(), interval=0).dial()
    with pytest.raises(UnknownNameError):
        machine.process(Scripted(unknown), interval=0).dial()


def test_two_processes_without_an_agent_know_of_each_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(place.FOLDER, str(tmp_path))
    monkeypatch.setenv(place.SWITCH, "off")
    tmp_path.chmod(0o700)
    # Two specs of one host are two connections, as two processes would have them.
    for user_known_hosts in ("/nowhere/1", "/nowhere/2"):
        spec = SshHost(hostname="127.0.0.1", port=1, user="me", known_hosts_file=user_known_hosts)
        with pytest.raises(HostUnreachableError) as caught:
            connect(spec).call("ping", {})
    assert "another process" in str(caught.value)


def test_a_name_that_ssh_itself_does_not_know_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable, value in ((place.FOLDER, str(tmp_path)), (place.SWITCH, "off")):
        monkeypatch.setenv(variable, value)
    tmp_path.chmod(0o700)
    spec = SshHost(hostname="no-such-host.invalid", user="me")
    with pytest.raises((HostRefusedError, HostUnreachableError)) as caught:
        connect(spec).call("ping", {})
    temporary = "Temporary failure" in str(caught.value)  # what a machine without any name server says
    assert isinstance(caught.value, HostUnreachableError if temporary else HostRefusedError)


def test_without_a_folder_of_its_own_a_process_connects_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(place.FOLDER, str(file))
    monkeypatch.setenv(place.SWITCH, "off")
    with pytest.raises(HostUnreachableError, match="can't connect"):
        connect(SshHost(hostname="127.0.0.1", port=1, user="other")).call("ping", {})
