"""What OpenSSH's log of a failed login says, as our errors: which host, why, and what to do."""

import re
from collections.abc import Sequence
from pathlib import Path

from dagster_slurm_components.errors import (
    LOGIN,
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
    UnknownNameError,
)
from dagster_slurm_components.spec.hosts import SshHost

_LOGGED_IN = re.compile("^(?:debug1: )?Authenticat(?:ed to|ion succeeded)", re.MULTILINE)
_KEY = re.compile(
    "^debug1: (?:Offering public key|Trying private key|Server accepts key): (.+?)"
    r"(?: [A-Z0-9-]+ SHA256:\S+(.*))?$",
    re.MULTILINE,
)
_HOST_KEY_RULES = (
    ("host key for .* is marked as revoked", "the host's key {key} is revoked: {line}", None),
    (
        r"^Offending .* key in (.+:\d+)",
        "THE HOST'S KEY HAS CHANGED: it shows {key}, but {place} lists another one. Somebody may be listening in; "
        "nothing was sent",
        "Ask the centre whether its key has changed. If it has, remove that line and add the new key.",
    ),
    (
        r"^No \S+ host key is known for (\S+)",
        "the host's key {key} is not known for {place} in {file}",
        "Compare the fingerprint with the one that the centre publishes, then add the key: "
        "ssh-keyscan -p {port} {host} >> {file}",
    ),
    ("^Unable to negotiate.*|^no matching.*", "no common algorithm: {line}", None),
    ("^.*[Bb]ad configuration.*|^Host key verification failed", "ssh refuses: {line}", None),
)
"""A line of the log, what it means, and what to do; the first that is there counts."""

_NO_SUCH_NAME = re.compile(
    "Could not resolve hostname .*: "
    "(Name or service not known|No address associated|nodename nor servname|Name does not resolve)"
)
"""What the C libraries of Linux (GNU, musl) and macOS say; "Temporary failure" is an outage."""


class DroppedError(HostUnreachableError):
    """The host hung up before the login: it has too many newcomers, so trying again soon is right."""


class DeniedError(HostRefusedError):
    """The host accepted no key, or not the answers."""


def failure(
    spec: SshHost, names: Sequence[str], logs: Sequence[str], locked: Sequence[str]
) -> tuple[int, HostError]:
    """Return which hop failed, and why: of the jump hosts, nearest first, and the host itself.

    ``logs`` are what ``ssh`` logged for each, and ``locked`` the key files whose passphrase was asked for.
    """
    for number, log in enumerate(logs[:-1]):
        if not _LOGGED_IN.search(log):
            return number, _reason(spec, names[number], log, locked)
        barred = re.search("open failed: (?:connect failed: )?(.*)", log)
        if barred:
            why = f"the jump host before it can't reach it: {barred[1].strip()}"
            return number + 1, HostUnreachableError(why, where=names[number + 1])
    log = logs[-1]
    connecting = re.findall(r"Connecting to (\S+) \[\S*\] port (\d+)", log)
    # A jump host that only ~/.ssh/config names logs here, too.
    through = connecting and "Executing proxy command: exec ssh" in log and not _LOGGED_IN.search(log)
    return len(logs) - 1, _reason(spec, ":".join(connecting[-1]) if through else names[-1], log, locked)


def denied(name: str, log: str, locked: Sequence[str]) -> DeniedError:
    """Return the error of a host that accepts no key, or wants more."""
    offered = re.findall("Authentications that can continue: (.*)", log)
    methods = offered[-1].strip() if offered else ""
    user = re.search("Authenticating to .* as '(.*)'", log)
    notes: dict[str, str] = {}
    if "with partial success" in log:
        what = f"accepted {key_in_question(log) or 'a key'} and wants more"
    else:
        hung_up = "Too many authentication failures" in log
        what = "hung up after these keys; name the right one as key_file" if hung_up else "accepted no key"
        notes |= {_label(key): "not accepted" for key in _KEY.finditer(log)}
        notes |= dict(re.findall('^Load key "(.*)": (.*?)\r?$', log, re.MULTILINE))
        notes |= dict.fromkeys(locked, "has a passphrase: ssh-add it")
    return DeniedError(
        f"the host {what} for user {user[1] if user else ''}"
        + (f"; it offers: {', '.join(methods.split(','))}" if methods else "")
        + "".join(f"\n  {key}: {note}" for key, note in notes.items()),
        where=name,
        hint="Write what it asks for as `login:` of the host, such as [key, otp]; then: " + LOGIN
        if re.search("keyboard-interactive|password", methods)
        else None,
    )


def key_in_question(log: str) -> str:
    """Return the file of the key that ``ssh`` used last."""
    keys = list(_KEY.finditer(log))
    return _label(keys[-1]) if keys else ""


def _label(key: re.Match[str]) -> str:
    """Return ``FILE`` or ``agent key COMMENT``."""
    of_agent = "agent" in (key[2] or "") and not Path(key[1]).is_file()
    return f"agent key {key[1]}" if of_agent else key[1].strip()


def _reason(spec: SshHost, name: str, log: str, locked: Sequence[str]) -> HostError:
    for pattern, text, hint in _HOST_KEY_RULES:
        match = re.search(pattern, log, re.MULTILINE)
        if match is not None:
            place = match[1] if match.re.groups else ""
            host, _, port = place.strip("[").partition("]:")
            shown = re.findall("Server host key: (.*)", log)
            facts = {
                "key": shown[-1].strip() if shown else "",
                "line": match[0].strip(),
                "place": place,
                "file": Path(spec.known_hosts_file or "~/.ssh/known_hosts").expanduser(),
                "host": host,
                "port": port or "22",
            }
            return HostRefusedError(text.format(**facts), where=name, hint=hint and hint.format(**facts))
    if re.search("Permission denied|Too many authentication failures", log):
        error = denied(name, log, locked)
        if spec.dialer == "ssh" or "gssapi" in spec.login:
            hint = "Renew the ticket, certificate or key that ssh uses (kinit, ssh-add), then all goes on."
            return LoginRequiredError(f"the login was not accepted: {error.message}", where=name, hint=hint)
        return error
    said = " ".join(line.strip() for line in log.splitlines() if not line.startswith(("debug1:", "OpenSSH_")))
    if "Authentications that can continue" in log:
        return HostUnreachableError(f"the connection was lost during the login: {said}", where=name)
    if "Connection established" in log or "Executing proxy command" in log:
        return DroppedError(f"the host hung up: {said}", where=name)
    kind = UnknownNameError if _NO_SUCH_NAME.search(said) else HostUnreachableError
    return kind(f"can't connect: {said}", where=name)
