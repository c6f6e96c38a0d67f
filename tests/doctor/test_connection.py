"""Each cause that keeps us from a host is named, against a real sshd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from sshd_fixture import Sshd, make_key, own_home, sshd, sshd_factory  # noqa: F401

from dagster_slurm_components.doctor.connection import STAGES, check_connection
from dagster_slurm_components.doctor.findings import Finding, Verdict
from dagster_slurm_components.hosts.base import Reply
from dagster_slurm_components.hosts.client import Satellite
from dagster_slurm_components.hosts.local import InProcessHost

Look = Callable[..., dict[str, Finding]]


def verdicts(found: Mapping[str, Finding]) -> list[str]:
    return [found[stage].verdict.value for stage in STAGES]


@pytest.mark.ssh
def test_a_good_host_passes(sshd: Sshd, look: Look) -> None:  # noqa: F811
    found = look(host=sshd.spec())
    assert verdicts(found) == ["ok"] * 4
    assert not any(finding.is_failure for finding in found.values())
    assert {"latency", "clock", "workdir", "room", "flock", "tools"} <= set(found)


@pytest.mark.ssh
def test_nobody_answers(own_home: Path, look: Look) -> None:  # noqa: F811
    host = {"type": "ssh", "hostname": "127.0.0.1", "port": free_port(), "user": "ada", "connect_timeout": 5}
    found = look(host=host)
    assert verdicts(found) == ["failed", "skipped", "skipped", "skipped"]
    assert "hostname and port" in str(found["reach"].advice)
    assert list(found) == list(STAGES), "nothing more can be checked"


@pytest.mark.ssh
def test_a_name_that_is_none(own_home: Path, look: Look) -> None:  # noqa: F811
    found = look(
        host={"type": "ssh", "hostname": "no-such-host.invalid", "user": "ada", "connect_timeout": 5}
    )
    assert verdicts(found) == ["failed", "skipped", "skipped", "skipped"]
    assert "Could not resolve hostname" in found["reach"].detail


@pytest.mark.ssh
def test_an_unknown_host_key(sshd: Sshd, look: Look) -> None:  # noqa: F811
    sshd.known_hosts.write_text("")
    found = look(host=sshd.spec())
    assert verdicts(found) == ["ok", "failed", "skipped", "skipped"]
    assert "SHA256:" in found["host_key"].detail
    assert "ssh-keyscan" in str(found["host_key"].advice)


@pytest.mark.ssh
def test_a_changed_host_key(sshd: Sshd, look: Look, tmp_path: Path) -> None:  # noqa: F811
    sshd.trust(make_key(tmp_path / "another"))
    found = look(host=sshd.spec())
    assert verdicts(found) == ["ok", "failed", "skipped", "skipped"]
    assert "CHANGED" in found["host_key"].detail


@pytest.mark.ssh
def test_a_wrong_user(sshd: Sshd, look: Look) -> None:  # noqa: F811
    found = look(host=sshd.spec(user="nobody-of-this-name"))
    assert verdicts(found) == ["ok", "ok", "failed", "skipped"]
    assert found["reach"].detail.endswith(" answers")
    assert found["host_key"].detail == "the host's key is known"
    assert "nobody-of-this-name" in found["login"].detail


@pytest.mark.ssh
def test_a_wrong_key(sshd: Sshd, look: Look, tmp_path: Path) -> None:  # noqa: F811
    found = look(host=sshd.spec(key_file=str(make_key(tmp_path / "another"))))
    assert verdicts(found) == ["ok", "ok", "failed", "skipped"]
    assert "not accepted" in found["login"].detail


@pytest.mark.ssh
def test_a_missing_key_file(sshd: Sshd, look: Look, tmp_path: Path) -> None:  # noqa: F811
    found = look(host=sshd.spec(key_file=str(tmp_path / "nowhere")))
    assert verdicts(found) == ["ok", "ok", "failed", "skipped"]


@pytest.mark.ssh
def test_a_host_without_python(sshd_factory: Callable[..., Sshd], look: Look, tmp_path: Path) -> None:  # noqa: F811
    refuses = tmp_path / "refuses.sh"
    refuses.write_text("#!/bin/sh\necho 'sh: python3: command not found' >&2\nexit 127\n")
    refuses.chmod(0o755)
    server = sshd_factory(f"ForceCommand {refuses}")
    found = look(host=server.spec())
    assert verdicts(found) == ["ok", "ok", "ok", "failed"]
    assert "3.6" in found["python"].detail


@pytest.mark.ssh
@pytest.mark.parametrize(
    ("host", "said"),
    [
        ({"python": "/no/python3"}, "/no/python3"),
        ({"setup": ["echo Loading", "false"]}, "ended with status 1: false"),
    ],
)
def test_a_named_python_or_a_setup_that_is_wrong(sshd: Sshd, look: Look, host: Any, said: str) -> None:  # noqa: F811
    found = look(host=sshd.spec(**host))
    assert verdicts(found) == ["ok", "ok", "ok", "failed"]
    assert said in found["python"].detail
    assert found["python"].advice


class Skewed(InProcessHost):
    """A host whose clock is wrong and whose line is slow, told by a timer that this very host moves on."""

    def __init__(self, skew: float, delay: float) -> None:
        super().__init__()
        self.skew, self.delay, self.now = skew, delay, 1_000_000.0

    def call(self, op: str, params: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> Reply:
        self.now += self.delay
        reply = super().call(op, params, *args, **kwargs)
        return Reply({**reply.result, "time": self.now - self.delay / 2 + self.skew}, reply.blob)


@pytest.mark.parametrize(
    ("skew", "delay", "clock", "latency"),
    [
        (0.0, 0.0, Verdict.OK, Verdict.OK),
        (4.0, 0.2, Verdict.OK, Verdict.OK),
        (90.0, 0.0, Verdict.WARNING, Verdict.OK),
        (-3600.0, 0.0, Verdict.WARNING, Verdict.OK),
        (0.0, 2.0, Verdict.OK, Verdict.WARNING),
    ],
)
def test_clock_and_latency(skew: float, delay: float, clock: Verdict, latency: Verdict) -> None:
    host = Skewed(skew, delay)
    findings = check_connection(Satellite(host), clock=lambda: host.now, timer=lambda: host.now)
    found = {finding.check: finding for finding in findings}
    assert (found["clock"].verdict, found["latency"].verdict) == (clock, latency)
    if clock is Verdict.WARNING:
        assert f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'}" in found["clock"].detail
