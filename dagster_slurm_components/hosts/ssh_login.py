"""One login by OpenSSH's own program: configured by files, its questions answered, its log read when it fails."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dagster_slurm_components.errors import (
    HostError,
    HostRefusedError,
    HostUnreachableError,
    LoginRequiredError,
)
from dagster_slurm_components.hosts import ssh_errors
from dagster_slurm_components.hosts.answers import INTERACTIVE, Answers, Prompt, required
from dagster_slurm_components.hosts.base import address
from dagster_slurm_components.hosts.certificate import validity
from dagster_slurm_components.hosts.ssh_errors import DeniedError
from dagster_slurm_components.spec.hosts import JumpHost, SshHost

PERSIST = 100
"""Seconds for which a connection without sessions is kept: longer than the longest pause between two attempts, so that
a satellite that was killed, or can't start on an overloaded host, costs no login."""

_TYPING = 120.0
"""Seconds for a person to answer; sshd's own LoginGraceTime is as long."""

_HOP = "DAGSTER_SLURM_HOP"
_HOSTNAME = re.compile(r"[A-Za-z0-9_.:%\[\]][A-Za-z0-9_.:%\[\]-]*")
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_NOT_OF_THE_HOST = ("Enter passphrase for ", "Enter PIN for ", "Confirm user presence ")
_PREFIX = re.compile(r"^\([^()]*@[^()]*\) ")
"""Says since OpenSSH 8.5 which host asks; we know it."""


class Login:
    """A login to a host, through its jump hosts.

    ``ssh`` reads a configuration file a hop and writes a log a hop. What it asks comes by ``askpass.sh`` over a
    socket, so that no secret is ever on a disk or in an argument. All lies in a folder that is closed to others, the
    master's socket too.
    """

    def __init__(self, spec: SshHost, answers: Answers, folder: Path) -> None:
        self._spec = spec
        self._answers = answers
        self._folder = folder
        self._hops: list[SshHost | JumpHost] = [*spec.jump, spec]
        self._names = [address(hop, spec.user) for hop in self._hops]
        self._asked = [[step for step in hop.login if step in INTERACTIVE] for hop in self._hops]
        self._answered = [0] * len(self._hops)
        self._locked: list[str] = []
        self._error: Exception | None = None

    def run(self) -> None:
        """Log in; raises as ``Dialer.dial``, and LoginRequiredError when a person has to do it."""
        for number, hop in enumerate(self._hops):
            self._check(hop, self._names[number])
            (self._folder / f"config{number}").write_text(self._config(number))
        questions = socket.socket(socket.AF_UNIX)
        questions.bind(str(self._folder / "askpass"))
        questions.listen()
        process = self._start()
        threading.Thread(target=self._serve, args=(questions, process), daemon=True).start()
        patience = _TYPING if any(self._asked) else max(self._spec.connect_timeout, 30)
        try:
            process.wait(self._spec.connect_timeout * len(self._hops) + patience)
        except subprocess.TimeoutExpired:
            self._error = HostUnreachableError("the login did not end in time", where=self._names[-1])
        finally:
            _kill(process)
            with contextlib.suppress(OSError):
                questions.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it
        if self._error is not None:
            raise self._error
        if process.returncode != 0:
            logs = [self._log(number) for number in range(len(self._hops))]
            number, error = ssh_errors.failure(self._spec, self._names, logs, self._locked)
            raise self._wrong(number) if self._answered[number] and isinstance(error, DeniedError) else error
        self._answers.accepted()

    def _check(self, hop: SshHost | JumpHost, name: str) -> None:
        if not _HOSTNAME.fullmatch(hop.hostname):
            raise HostRefusedError(f"{hop.hostname!r} is no host's name", where=name)
        key_file = hop.key_file or self._spec.key_file
        if key_file is not None and not set(hop.login) <= INTERACTIVE:
            if not Path(key_file).expanduser().is_file():
                raise HostRefusedError(f"there is no key file {key_file}", where=name)
            certificate = validity(key_file)
            if certificate is not None and certificate.over:  # not even sent
                why = f"the host would accept no key:\n  {key_file}: its certificate {certificate}"
                raise LoginRequiredError(why, where=name, hint="Renew the certificate.")
        self._answers.check(name, hop.login)

    def _log(self, number: int) -> str:
        path = self._folder / f"log{number}"
        return path.read_text(errors="replace") if path.exists() else ""

    def _ssh(self, number: int) -> list[str]:
        return ["ssh", f"-F{self._folder}/config{number}", f"-E{self._folder}/log{number}", "-vT"]

    def _start(self) -> subprocess.Popen[bytes]:
        last = len(self._hops) - 1
        askpass = Path(__file__).with_name("askpass.sh")
        if not os.access(askpass, os.X_OK):  # ssh would send empty answers
            raise HostRefusedError(f"{askpass} must be executable", where=self._names[-1])
        environment = {
            **os.environ,
            **{f"{_HOP}_{number}": hop.hostname for number, hop in enumerate(self._hops)},
            _HOP: str(last),
            "SSH_ASKPASS": str(askpass),
            "SSH_ASKPASS_REQUIRE": "force",
            # OpenSSH before 8.4 asks by askpass only where it believes in a display and has no terminal.
            "DISPLAY": os.environ.get("DISPLAY", "none"),
            "DAGSTER_SLURM_PYTHON": sys.executable,
            "DAGSTER_SLURM_ASKPASS": str(self._folder / "askpass"),
        }
        with open(self._folder / f"log{last}", "ab") as log:
            try:
                return subprocess.Popen(
                    [*self._ssh(last), "-fN", "--", self._spec.hostname],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                why, hint = f"can't run ssh: {error.strerror}", "Install OpenSSH's client on this machine."
                raise HostRefusedError(why, where=self._names[-1], hint=hint) from error

    def _config(self, number: int) -> str:
        """Return a hop's configuration: what the spec says, then the user's and the system's own, then our defaults.

        A jump host that those name is reached with the same file: all but ``Host *`` is for this hop alone.
        """
        hop, spec = self._hops[number], self._spec
        key_file, user = hop.key_file or spec.key_file, hop.user or spec.user
        lines = [f"Host {hop.hostname}", f"PreferredAuthentications {_methods(hop.login)}"]
        if hop is spec:
            lines += ["ControlMaster yes", f"ControlPath {_quoted(self._folder / 'master')}"]
        else:
            lines += ["ControlMaster no", "ControlPath none"]
        if "port" in hop.model_fields_set:
            lines.append(f"Port {hop.port}")
        if user:
            lines.append(f"User {_quoted(user)}")
        if key_file:
            lines += [f"IdentityFile {_quoted(key_file)}", "IdentitiesOnly yes"]
        if "gssapi" in hop.login:
            lines.append("GSSAPIAuthentication yes")
        if number:
            # Not ProxyJump: that hands on neither the next file nor its log. The name comes by the environment, as a
            # shell reads this line.
            program = " ".join(self._ssh(number - 1))
            lines.append(
                f'ProxyCommand env {_HOP}={number - 1} {program} -W "[%h]:%p" -- "${_HOP}_{number - 1}"'
            )
        home = Path.home() / ".ssh"
        lines += [
            *_COMMON,
            f"ConnectTimeout {max(1, round(spec.connect_timeout))}",
            f"ServerAliveInterval {round(spec.keepalive)}",
        ]
        if spec.known_hosts_file:
            lines += [f"UserKnownHostsFile {_quoted(spec.known_hosts_file)}", "GlobalKnownHostsFile none"]
        lines += [f"Include {_quoted(home / 'config')}", "Include /etc/ssh/ssh_config"]
        lines.append(f"UserKnownHostsFile {_quoted(home / 'known_hosts')} {_quoted(home / 'known_hosts2')}")
        keys = [home / name for name in _DEFAULT_KEYS if (home / name).is_file()]
        lines += [f"IdentityFile {_quoted(key)}" for key in keys]
        if has_aes(_CPUS):
            lines.append(f"Ciphers {_CIPHERS}")
        return "\n".join(lines) + "\n"

    def _serve(self, questions: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Answer what ``ssh`` asks, until it ends."""
        with questions, contextlib.suppress(OSError):
            while True:
                connection, _ = questions.accept()
                with connection, connection.makefile("rwb") as stream:
                    hop, _, text = os.fsdecode(stream.read()).partition("\0")
                    try:
                        answer = self._answer(int(hop), text)
                    except Exception as error:  # noqa: BLE001 - raised by who waits for ssh
                        # Killed, as it would send an empty answer else, and a host counts those, too.
                        self._error = error
                        _kill(process)
                        return
                    stream.write(answer.encode())

    def _answer(self, number: int, text: str) -> str:
        log = self._log(number)
        if text.startswith(_NOT_OF_THE_HOST):
            self._locked.append(ssh_errors.key_in_question(log))
            return ""
        _, partial, rest = log.rpartition("partial success")
        if not partial and not set(self._hops[number].login) <= INTERACTIVE:
            raise ssh_errors.denied(self._names[number], log, self._locked)
        # A further method means that the last answer was wrong; a second attempt may lock the account.
        begun = len(re.findall("Next authentication method: (?:password|keyboard-interactive)", rest))
        before, self._answered[number] = self._answered[number], begun
        if 0 < before < begun:
            raise self._wrong(number)
        said = log.rpartition("Next authentication method:")[2].splitlines()[1:]
        return self._answers.answer(
            Prompt(
                self._names[number],
                self._asked[number].pop(0) if self._asked[number] else "otp",
                _PREFIX.sub("", text),
                instructions=" ".join(line.strip() for line in said if not line.startswith("debug1:")),
            )
        )

    def _wrong(self, number: int) -> HostError:
        attended = self._answers.attended
        self._answers.refused()
        name, why = self._names[number], "the answers were not accepted"
        return HostRefusedError(why, where=name) if attended else required(name, why)


def has_aes(cpus: Path) -> bool:
    """Return whether this machine's processors know AES; those of which the system tells nothing do."""
    try:
        return re.search(r"^(?:flags|Features)\b.*\baes\b", cpus.read_text(), re.MULTILINE) is not None
    except OSError:  # no Linux
        return True


_CPUS = Path("/proc/cpuinfo")
_CIPHERS = (
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,"
    "aes128-ctr,aes192-ctr,aes256-ctr"
)
"""OpenSSH's own, those first that processors do: 2 GB cost 5.2 s of CPU, at both ends together, instead of 7.7 s.
All are named, as releases before 8.1 know no ``^``."""

_COMMON = (
    "Host *",
    "PreferredAuthentications gssapi-with-mic,hostbased,publickey",
    f"ControlPersist {PERSIST}",
    "BatchMode no",
    "StrictHostKeyChecking yes",
    "UpdateHostKeys no",
    "VisualHostKey no",
    "NumberOfPasswordPrompts 1",
    "ServerAliveCountMax 2",
    "ForwardAgent no",
    "ForwardX11 no",
    "ClearAllForwardings yes",
    "PermitLocalCommand no",
    "RemoteCommand none",
    "AddKeysToAgent no",
)


def _methods(steps: Sequence[str]) -> str:
    asked = [step for step in steps if step in INTERACTIVE]
    methods = ["gssapi-with-mic", "hostbased", "publickey"] if len(asked) < len(steps) else []
    if asked == ["password"]:
        methods += ["password", "keyboard-interactive"]
    elif asked:
        # PAM asks for password and one-time password in one conversation, which "password" can't carry.
        methods += ["keyboard-interactive", "password"]
    return ",".join(methods)


def _quoted(value: str | Path) -> str:
    text = " ".join(os.path.expanduser(value).splitlines())  # a line is an option
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
