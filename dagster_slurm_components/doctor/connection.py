"""Can the host be reached, is it the right one, does it let us in, and does the satellite run there?"""

import time
from collections.abc import Callable, Iterator

from dagster_slurm_components.doctor.findings import Finding, failed, ok, warning
from dagster_slurm_components.errors import HostError, HostUnreachableError, LoginRequiredError
from dagster_slurm_components.hosts.client import Satellite

_ADVICE = {
    "reach": "Check the hostname and port, the network, VPN and jump hosts; try `ssh` by hand.",
    "host_key": "Compare the fingerprint with the one that the centre publishes before you trust it.",
    "login": "Check `user`, `key_file` and `login` in the profile; try `ssh` with them by hand.",
    "python": "The host needs a Python 3.6 or newer for commands without a terminal (ssh HOST python3 --version); the"
    " profile's host may name it as `python`, and load its module by `setup`.",
}
STAGES = tuple(_ADVICE)
"""The checks of a connection, in the order in which they are passed."""
_PASSED = {"reach": "{} answers", "host_key": "the host's key is known", "login": "the login was accepted"}
_MOST_SKEW = 5.0
_SLOW = 0.5
_CALLS = 5


def check_connection(
    satellite: Satellite,
    *,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
) -> Iterator[Finding]:
    """Connect and ask the host what it is; a failed stage is the last finding.

    ``clock`` tells the time here, as an epoch; ``timer`` measures durations, in seconds.
    """
    started = timer()
    try:
        facts = satellite.hello()
    except HostError as error:
        stage = _failed_stage(error)
        name = error.where or satellite.host.name
        yield from (ok(passed, _PASSED[passed].format(name)) for passed in STAGES[: STAGES.index(stage)])
        yield failed(stage, error.message, error.hint or _ADVICE[stage])
        return
    took, name = timer() - started, satellite.host.name
    yield ok("reach", f"{name} answers")
    yield ok("host_key", "the host's key is known" if name != "local" else "this machine")
    yield ok("login", f"as {facts.user} on {facts.hostname}, first answer after {took:.2f} s")
    yield ok("python", f"{facts.python} ({facts.executable})")
    yield from _latency_and_clock(satellite, clock, timer)


def _failed_stage(error: HostError) -> str:
    if isinstance(error, LoginRequiredError):
        return "login"
    text = error.message
    # By the words of the host layer's own errors; each has a test against a real sshd.
    if text.startswith("can't connect"):
        return "reach"
    if "HOST'S KEY" in text or text.startswith("the host's key"):
        return "host_key"
    if "Python" in text or text.startswith(("the satellite did not start", "the `setup` of")):
        return "python"
    return "reach" if isinstance(error, HostUnreachableError) else "login"


def _latency_and_clock(
    satellite: Satellite, clock: Callable[[], float], timer: Callable[[], float]
) -> Iterator[Finding]:
    calls = []
    for _ in range(_CALLS):
        before, started = clock(), timer()
        host_time = satellite.hello().time
        took = timer() - started
        calls.append((took, host_time - before - took / 2))
    # The quickest call tells the clocks' difference best.
    took, offset = min(calls)
    if took > _SLOW:
        advice = "Logs and results will lag by as much; is a nearer login node or jump host to be had?"
        yield warning("latency", f"a call takes {took:.2f} s", advice)
    else:
        yield ok("latency", f"a call takes {took * 1000:.1f} ms")
    if abs(offset) > _MOST_SKEW:
        direction = "ahead of" if offset > 0 else "behind"
        advice = "Start and end times of jobs will be shifted by as much; synchronise the clocks (NTP)."
        yield warning("clock", f"the host's clock is {abs(offset):.0f} s {direction} this machine's", advice)
    else:
        yield ok("clock", f"differs by {abs(offset):.1f} s")
