"""A step's calls wait for a lost host: told once, for as long as is allowed, and as long as nobody calls them off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dagster_slurm_components.errors import LOGIN as TYPE
from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    ParkedTooLongError,
    SatelliteError,
)
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.connect import ProfileHost
from dagster_slurm_components.hosts.parked import ParkedHost, Parking

LOST = HostUnreachableError("no route", where="login")
LOGIN = LoginRequiredError("the login asks for otp", where="login")


class Scripted:
    """A host whose errors are given; then it answers."""

    name = "login"

    def __init__(self, errors: Sequence[HostError]) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[str, object, bytes, float]] = []

    def call(
        self, op: str, params: Mapping[str, Any] | None = None, blob: bytes = b"", *, timeout: float = 60.0
    ) -> Reply:
        self.calls.append((op, params, blob, timeout))
        if self.errors:
            raise self.errors.pop(0)
        return Reply({"done": True})

    def close(self) -> None: ...


class World:
    """A parked host with a clock of its own."""

    def __init__(self, *errors: HostError, limit: float = 3600) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.waits: list[float] = []
        self.scripted = Scripted(errors)
        parking = Parking(limit, self.told.append, self.sleep, lambda: self.now)
        self.host = ParkedHost(self.scripted, parking)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_the_same_call_is_made_again_until_the_host_answers() -> None:
    world = World(*[LOST] * 5)
    assert world.host.call("put", {"path": "/a"}, b"x", timeout=7).result == {"done": True}
    assert world.scripted.calls == [("put", {"path": "/a"}, b"x", 7)] * 6
    assert world.waits == [0.5, 1, 2, 2.5, 2.5]
    assert len(world.told) == 2, "the beginning and the end, not every try"
    assert "no route" in world.told[0]
    assert world.told[1] == "The host answers again after 8 s."


def test_f12_what_to_type_names_the_profile() -> None:
    asked = LoginRequiredError("the login asks for otp", where="login", hint=f"Log in once with: {TYPE}")
    for profile in ("site", "other"):
        with pytest.raises(LoginRequiredError) as caught:
            ProfileHost(Scripted([asked]), profile).call("ping", {})
        assert str(caught.value) == (
            f"login: the login asks for otp\nLog in once with: dg-slurm login {profile}"
        )


def test_without_a_loss_nothing_is_told() -> None:
    world = World()
    world.host.call("ping", {})
    assert (world.told, world.waits) == ([], [])


def test_a_wait_whose_reason_changes_is_told_again_with_its_beginning() -> None:
    world = World(LOST, LOST, LOST, LOGIN, LOGIN)
    world.host.call("ping", {})
    assert len(world.told) == 3
    assert "asks for otp" in world.told[1]
    assert "waits for the host since 2" in world.told[1]


def test_it_ends_when_it_has_waited_as_long_as_it_may() -> None:
    world = World(*[LOST] * 10_000, limit=3600)
    with pytest.raises(ParkedTooLongError, match="park_timeout") as caught:
        world.host.call("ping", {})
    assert world.now == 3600
    assert "1.0 h" in str(caught.value)
    assert max(world.waits) == 2.5


@pytest.mark.parametrize("error", [HostRefusedError("the key has changed"), SatelliteError("disk full")])
def test_what_waiting_does_not_heal_is_raised_at_once(error: HostError) -> None:
    world = World(error)
    with pytest.raises(type(error)):
        world.host.call("ping", {})
    assert world.waits == []


def test_who_waits_can_be_called_off() -> None:
    world = World(*[LOST] * 10)

    class CalledOff(BaseException): ...

    def sleep(seconds: float) -> None:
        raise CalledOff

    with pytest.raises(CalledOff):
        ParkedHost(world.scripted, Parking(60, world.told.append, sleep=sleep)).call("ping", {})
