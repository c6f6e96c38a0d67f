"""Can the host be reached, is it the right one, does it let us in, and does the satellite run there?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dagster_slurm_components.doctor.findings import Finding, failed, ok, skipped, warning
from dagster_slurm_components.errors import HostError, HostUnreachableError, LoginRequiredError
from dagster_slurm_components.hosts.calls import HostFacts
from dagster_slurm_components.hosts.client import Satellite

STAGES = ("reach", "host_key", "login", "python")
"""The checks of a connection, in the order in which they are passed."""

_ADVICE = {
    "reach": "Check the hostname and port, the network, VPN and jump hosts; try `ssh` by hand.",
    "host_key": "Compare the fingerprint with the one that the centre publishes before you trust it.",
    "login": "Check `user`, `key_file` and `login` in the profile; try `ssh` with them by hand.",
    "python": "The host needs a python3, 3.6 or newer, for commands without a terminal: ssh HOST python3 --version",
}
_MOST_SKEW = 5.0
_SLOW = 0.5
_CALLS = 5


@dataclass(frozen=True)
class Connection:
    """What the checks of a connection found.

    Attributes:
        findings: One for each stage, then latency and clock.
        facts: What the host is; None if it could not be asked.
    """

    findings: tuple[Finding, ...]
    facts: HostFacts | None


def check_connection(
    satellite: Satellite,
    *,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
) -> Connection:
    """Connect and ask the host what it is.

    Args:
        satellite: The host.
        clock: The time here, as an epoch.
        timer: Measures durations, in seconds.
    """
    started = timer()
    try:
        facts = satellite.hello()
    except HostError as error:
        return Connection(tuple(_failures(error)), None)
    took = timer() - started
    name = satellite.host.name
    findings = [
        ok("reach", f"{name} answers"),
        ok("host_key", "the host's key is known" if name != "local" else "this machine"),
        ok("login", f"as {facts.user} on {facts.hostname}, first answer after {took:.2f} s"),
        ok("python", f"{facts.python} ({facts.executable})"),
        *_latency_and_clock(satellite, clock, timer),
    ]
    return Connection(tuple(findings), facts)


def failed_stage(error: HostError) -> str:
    """Return which of the stages an error ended at."""
    if isinstance(error, LoginRequiredError):
        return "login"
    text = error.message
    # By the words of the host layer's own errors; each has a test against a real sshd.
    if "HOST'S KEY" in text or text.startswith("the host's key"):
        return "host_key"
    if "Python" in text or text.startswith("the satellite did not start"):
        return "python"
    return "reach" if isinstance(error, HostUnreachableError) else "login"


def _failures(error: HostError) -> Iterator[Finding]:
    wrong = STAGES.index(failed_stage(error))
    for number, stage in enumerate(STAGES):
        if number < wrong:
            yield ok(stage, "passed")
        elif number == wrong:
            yield failed(stage, error.message, error.hint or _ADVICE[stage])
        else:
            yield skipped(stage, f"{STAGES[wrong]} failed")


def _latency_and_clock(
    satellite: Satellite, clock: Callable[[], float], timer: Callable[[], float]
) -> Iterator[Finding]:
    took, skew = [], []
    for _ in range(_CALLS):
        before, started = clock(), timer()
        there = satellite.hello().time
        took.append(timer() - started)
        skew.append(there - before - took[-1] / 2)
    quickest = min(took)
    if quickest > _SLOW:
        yield warning(
            "latency",
            f"a call takes {quickest:.2f} s",
            "Logs and results will lag by as much; is a nearer login node or jump host to be had?",
        )
    else:
        yield ok("latency", f"a call takes {quickest * 1000:.1f} ms")
    offset = skew[took.index(quickest)]
    if abs(offset) > _MOST_SKEW:
        direction = "ahead of" if offset > 0 else "behind"
        yield warning(
            "clock",
            f"the host's clock is {abs(offset):.0f} s {direction} this machine's",
            "Start and end times of jobs will be shifted by as much; synchronise the clocks (NTP).",
        )
    else:
        yield ok("clock", f"differs by {abs(offset):.1f} s")
