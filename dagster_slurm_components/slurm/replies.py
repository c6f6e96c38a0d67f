"""Tell an answer from a failed question."""

from __future__ import annotations

import re

UNREACHABLE: tuple[str, ...] = (
    r"unable to contact slurm controller",
    r"socket timed out",
    r"timed out (?:establishing|reading|writing)",
    r"connection (?:refused|reset|failure|timed out|forced closed|rejected)",
    r"communication (?:connection|shutdown) failure",
    r"message (?:send|receive) failure",
    r"zero bytes were transmitted",
    r"unexpected message received",
    r"header lengths are longer",
    r"insane message length",
    r"transport endpoint",
    r"broken pipe",
    r"no route to host",
    r"network is unreachable",
    r"temporarily (?:unable|unavailable|disabled)",
    r"interrupted system call",
    r"rate limit exceeded",
    r"standby mode",
    r"could not establish a configuration source",
    r"failed to (?:fetch|load) config",
    r"protocol authentication error",
    r"authentication (?:credential|agent|does not apply)",
    r"munge",
)
"""Patterns, case ignored, of messages about reaching Slurm's daemons rather than about the request."""

_DATABASE = (
    r"problem talking to the database",
    r"unable to connect to database",
    r"failed to open persistent connection",
    r"slurm accounting storage is disabled",
)
_TROUBLE = re.compile("|".join((*UNREACHABLE, *_DATABASE)), re.IGNORECASE)


def query_failure(returncode: int | None, out: str, err: str) -> str | None:
    """Say why a query gave no observation, or ``None`` when its answer counts.

    An answer counts when the program ended with 0, unless it wrote nothing at all and complained of the
    network: sacct 20.11 ends with ``exit(errno)``, whose low byte may be 0. Harmless complaints (an unknown
    line in slurm.conf makes every command print one) don't spoil an answer.

    Args:
        returncode: How the program ended: negative for a signal, ``None`` when it was given up on.
        out: Its standard output.
        err: Its standard error.
    """
    if returncode == 0 and (out.strip() or not _TROUBLE.search(err)):
        return None
    said = last_line(err) or last_line(out)
    if returncode is None:
        return said or "no answer in time"
    if returncode < 0:
        return said or f"ended by signal {-returncode}"
    return said or f"exit code {returncode} without a message"


def last_line(text: str) -> str:
    """Return the last line that is not blank, without Slurm's ``program: error:`` before it."""
    lines = messages(text)
    return lines[-1] if lines else ""


def messages(text: str) -> list[str]:
    """Return the lines that are not blank, each without the ``program: error:`` before it."""
    lines = (
        re.sub(r"^(?:[\w./-]+: )?(?:error|fatal|warning): ", "", line.strip()) for line in text.split("\n")
    )
    return [line for line in lines if line]
