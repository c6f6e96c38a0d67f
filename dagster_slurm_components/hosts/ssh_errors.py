"""What OpenSSH's log of a failed login says, as our errors: which host, why, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
)
from dagster_slurm_components.spec.hosts import SshHost

_LOGGED_IN = re.compile("^(?:debug1: )?Authenticat(?:ed to|ion succeeded)", re.MULTILINE)
_KEY = re.compile(
    r"^debug1: (?:Offering public key|Trying private key|Server accepts key): (.+)$", re.MULTILINE
)
_FINGERPRINT = re.compile(r" [A-Z0-9-]+ SHA256:\S+(.*)$")


class DroppedError(HostUnreachableError):
    """The host hung up before the login: it has too many newcomers, so trying again soon is right."""


class DeniedError(HostRefusedError):
    """The host accepted no key, or not the answers."""


def failure(
    spec: SshHost, names: Sequence[str], logs: Sequence[str], locked: Sequence[str]
) -> tuple[int, HostError]:
    """Return which hop failed, and why.

    Args:
        spec: The host.
        names: The names of its jump hosts, nearest first, and of itself.
        logs: What ``ssh`` logged for each.
        locked: Key files whose passphrase was asked for.
    """
    for number, log in enumerate(logs[:-1]):
        if not _LOGGED_IN.search(log):
            return number, _reason(spec, names[number], log, locked)
        barred = re.search("open failed: (?:connect failed: )?(.*)", log)
        if barred:
            return number + 1, HostUnreachableError(
                f"the jump host before it can't reach it: {barred[1].strip()}", where=names[number + 1]
            )
    return len(logs) - 1, _reason(spec, _name_in(logs[-1]) or names[-1], logs[-1], locked)


def denied(name: str, log: str, locked: Sequence[str]) -> DeniedError:
    """Return the error of a host that accepts no key, or wants more."""
    keys = list(dict.fromkeys(map(_label, _KEY.findall(log))))
    offered = re.findall("Authentications that can continue: (.*)", log)
    methods = offered[-1].strip() if offered else ""
    accepted = [_label(key) for key in re.findall("Server accepts key: (.+)", log)]
    if "with partial success" in log:
        what, notes = f"accepted {accepted[-1] if accepted else 'a key'} and wants more", {}
    else:
        what = (
            "hung up after these keys; name the right one as key_file" if _hung_up(log) else "accepted no key"
        )
        notes = dict.fromkeys(keys, "not accepted")
        notes |= dict(re.findall('^Load key "(.*)": (.*?)\r?$', log, re.MULTILINE))
        notes |= dict.fromkeys(locked, "has a passphrase: ssh-add it")
    user = re.search("Authenticating to .* as '(.*)'", log)
    interactive = re.search("keyboard-interactive|password", methods)
    return DeniedError(
        f"the host {what} for user {user[1] if user else ''}"
        + (f"; it offers: {', '.join(methods.split(','))}" if methods else "")
        + "".join(f"\n  {key}: {note}" for key, note in notes.items()),
        where=name,
        hint="Write what it asks for as `login:` of the host, such as [key, otp]; then: dg-slurm login PROFILE"
        if interactive
        else None,
    )


def key_in_question(log: str) -> str:
    """Return the file of the key that ``ssh`` has just begun to use."""
    keys = _KEY.findall(log)
    return _label(keys[-1]) if keys else ""


def _reason(spec: SshHost, name: str, log: str, locked: Sequence[str]) -> HostError:
    for pattern, error_of in _RULES:
        match = re.search(pattern, log, re.MULTILINE)
        if match:
            return error_of(spec, name, match, log)
    if re.search("Permission denied|Too many authentication failures", log):
        error = denied(name, log, locked)
        if spec.dialer == "ssh" or "gssapi" in spec.login:
            return LoginRequiredError(f"the login was not accepted: {error.message}", where=name, hint=_RENEW)
        return error
    said = " ".join(line.strip() for line in log.splitlines() if not line.startswith("debug1:"))
    if "Authentications that can continue" in log:
        return HostUnreachableError(f"the connection was lost during the login: {said}", where=name)
    if "Connection established" in log or "Executing proxy command" in log:
        return DroppedError(f"the host hung up: {said}", where=name)
    return HostUnreachableError(f"can't connect: {said}", where=name)


_RENEW = "Renew the ticket, certificate or key that ssh uses (kinit, ssh-add), then all goes on."


def _shown(log: str) -> str:
    keys = re.findall("Server host key: (.*)", log)
    return keys[-1].strip() if keys else "(not shown)"


def _changed(spec: SshHost, name: str, match: re.Match[str], log: str) -> HostError:
    return HostRefusedError(
        f"THE HOST'S KEY HAS CHANGED: it shows {_shown(log)}, but {match[1]} lists another one. Somebody may be "
        "listening in; nothing was sent",
        where=name,
        hint="Ask the centre whether its key has changed. If it has, remove that line and add the new key.",
    )


def _unknown(spec: SshHost, name: str, match: re.Match[str], log: str) -> HostError:
    file = Path(spec.known_hosts_file or "~/.ssh/known_hosts").expanduser()
    host, _, port = match[1].strip("[").partition("]:")
    return HostRefusedError(
        f"the host's key {_shown(log)} is not known for {match[1]} in {file}",
        where=name,
        hint="Compare the fingerprint with the one that the centre publishes, then add the key: "
        f"ssh-keyscan -p {port or 22} {host} >> {file}",
    )


def _revoked(spec: SshHost, name: str, match: re.Match[str], log: str) -> HostError:
    return HostRefusedError(f"the host's key {_shown(log)} is revoked: {match[0]}", where=name)


def _refused(spec: SshHost, name: str, match: re.Match[str], log: str) -> HostError:
    return HostRefusedError(f"ssh refuses: {match[0].strip()}", where=name)


def _no_algorithm(spec: SshHost, name: str, match: re.Match[str], log: str) -> HostError:
    return HostRefusedError(f"no common algorithm: {match[0].strip()}", where=name)


_RULES: Sequence[tuple[str, Callable[[SshHost, str, re.Match[str], str], HostError]]] = (
    ("host key for .* is marked as revoked", _revoked),
    (r"^Offending .* key in (.+:\d+)", _changed),
    (r"^No \S+ host key is known for (\S+)", _unknown),
    ("^Unable to negotiate.*|^no matching.*", _no_algorithm),
    ("^.*[Bb]ad configuration.*|^Host key verification failed", _refused),
)
"""Lines of the log that decide, the first that is found, and the errors that they are."""


def _label(key: str) -> str:
    """Return ``FILE`` or ``agent key COMMENT`` of what the log says of a key."""
    path = _FINGERPRINT.sub("", key.strip())
    details = _FINGERPRINT.search(key.strip())
    return f"agent key {path}" if details and "agent" in details[1] and not Path(path).is_file() else path


def _hung_up(log: str) -> bool:
    return "Too many authentication failures" in log


def _name_in(log: str) -> str | None:
    """Return the name of a jump host that ``~/.ssh/config`` names, if that is where the login ended."""
    connecting = re.findall(r"Connecting to (\S+) \[\S*\] port (\d+)", log)
    through = "Executing proxy command: exec ssh" in log and not _LOGGED_IN.search(log)
    return ":".join(connecting[-1]) if through and connecting else None
