"""Logging in over ssh: with keys from a file, the ssh agent or ``~/.ssh``, then with what else the host asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError, LoginRequiredError
from dagster_slurm_components.hosts.answers import INTERACTIVE, Answers, Prompt, required
from dagster_slurm_components.hosts.certificate import validity

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


class Login:
    """Goes through the steps of a login. paramiko calls ``authenticate`` when the host key is accepted.

    Not paramiko's own way of trying keys: when a host wants a second factor, that asks for it on standard input.

    Args:
        name: The host's name for messages.
        user: The user there.
        key_file: The one key file to use, if the profile names one.
        key_files: Further key files, used if they exist.
        steps: What the host asks for, in order.
        answers: Who knows the answers.
    """

    def __init__(
        self,
        name: str,
        user: str,
        key_file: str | None,
        key_files: Sequence[str],
        *,
        steps: Sequence[str] = ("key",),
        answers: Answers | None = None,
    ) -> None:
        self._name = name
        self._user = user
        self._key_file = key_file
        self._key_files = key_files
        self._steps = steps
        self._answers = answers or Answers()
        self._notes: list[str] = []
        self._expired = False
        self._asked = [step for step in steps if step in INTERACTIVE]

    @property
    def interactive(self) -> bool:
        """Whether somebody has to answer."""
        return bool(self._asked)

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Log in.

        Raises:
            HostRefusedError: No key or answer was accepted, or the host wants more than the profile says.
            LoginRequiredError: A person has to log in.
            HostUnreachableError: The connection was lost meanwhile.
        """
        self._notes = []
        self._expired = False
        self._asked = [step for step in self._steps if step in INTERACTIVE]
        if "gssapi" in self._steps:
            raise self._refused("is to be reached with gssapi; write `dialer: ssh` for that", [])
        with_key = len(self._asked) < len(self._steps)
        wanted = self._with_keys(transport) if with_key else self._offered(transport)
        while wanted:
            wanted = self._interactively(transport, wanted)
        self._answers.accepted()
        return []

    def _with_keys(self, transport: paramiko.Transport) -> list[str]:
        """Return what the host wants after a key."""
        for label, key in self._keys():
            try:
                wanted = transport.auth_publickey(self._user, key)
            except paramiko.BadAuthenticationType as error:
                raise self._refused("takes no keys", error.allowed_types) from error
            except paramiko.AuthenticationException as error:
                self._check_connection(transport, error)
                self._notes.append(f"{label}: not accepted")
                continue
            if wanted and not self._asked:
                raise self._refused(f"accepted {label} and wants more", wanted)
            return list(wanted)
        refused = self._refused("accepted no key", self._offered(transport))
        if self._expired:  # a new certificate heals it
            raise LoginRequiredError(refused.message, where=self._name, hint="Renew the certificate.")
        raise refused

    def _interactively(self, transport: paramiko.Transport, offered: Sequence[str]) -> list[str]:
        """Do one step that somebody has to answer; return what the host wants after it."""
        by_password = "password" in offered and self._asked[:1] == ["password"]
        try:
            # PAM asks for password and one-time password in one conversation, which "password" can't carry.
            if "keyboard-interactive" in offered and not (by_password and "otp" not in self._asked):
                return list(transport.auth_interactive(self._user, self._converse))
            if "password" in offered:
                prompt = Prompt(self._name, self._next_kind(), f"Password of {self._name}: ")
                secret = self._answers.answer(prompt)
                return list(transport.auth_password(self._user, secret, fallback=False))
        except paramiko.BadAuthenticationType as error:
            raise self._refused("takes no such answers", error.allowed_types) from error
        except paramiko.AuthenticationException as error:
            self._answers.refused()
            attended = self._answers.attended
            why = "the answers were not accepted"
            raise (
                HostRefusedError(why, where=self._name) if attended else required(self._name, why)
            ) from error
        raise self._refused("wants what the profile's `login` does not say", offered)

    def _converse(self, title: str, instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        """Answer the host's questions; called by paramiko, with no questions at the conversation's end."""
        about = " ".join(text.strip() for text in (title, instructions) if text.strip())
        return [
            self._answers.answer(Prompt(self._name, self._next_kind(), text, echo, about))
            for text, echo in prompts
        ]

    def _next_kind(self) -> str:
        return self._asked.pop(0) if self._asked else "otp"

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if self._key_file is not None:
            if not Path(self._key_file).expanduser().is_file():
                raise HostRefusedError(f"there is no key file {self._key_file}", where=self._name)
            yield from self._load(self._key_file)
        agent = paramiko.Agent()
        try:
            for key in agent.get_keys():
                yield f"agent key {key.comment or key.get_name()}", key
        finally:
            agent.close()
        if self._key_file is None:
            defaults = [str(Path.home() / ".ssh" / name) for name in _DEFAULT_KEYS]
            for file in dict.fromkeys([*self._key_files, *defaults]):
                if Path(file).expanduser().is_file():
                    yield from self._load(file)

    def _load(self, file: str) -> Iterator[tuple[str, paramiko.PKey]]:
        try:
            key = paramiko.PKey.from_path(file)
            ends = validity(file)
            if ends is not None and ends.over:
                self._notes.append(f"{file}: its certificate {ends}")
                self._expired = True
                return
            yield file, key
        except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, TypeError, ValueError, OSError) as error:
            # TypeError is what cryptography says of a key with a passphrase: the agent may hold it.
            encrypted = isinstance(error, paramiko.PasswordRequiredException | TypeError)
            reason = "has a passphrase: ssh-add it" if encrypted else str(error)
            self._notes.append(f"{file}: {reason}")

    def _check_connection(self, transport: paramiko.Transport, error: Exception) -> None:
        if transport.is_active():
            return
        if self._notes:  # sshd hangs up after MaxAuthTries keys
            raise self._refused("hung up after these keys; name the right one as key_file", []) from error
        raise HostUnreachableError(f"the connection was lost during the login: {error}", where=self._name)

    def _offered(self, transport: paramiko.Transport) -> list[str]:
        try:
            transport.auth_none(self._user)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        except paramiko.SSHException:
            pass  # hung up: then its methods stay unknown
        return []

    def _refused(self, what: str, methods: Sequence[str]) -> HostRefusedError:
        tried = "\n".join(f"  {note}" for note in self._notes)
        offers = f"; it offers: {', '.join(methods)}" if methods else ""
        interactive = {"keyboard-interactive", "password"} & set(methods)
        return HostRefusedError(
            f"the host {what} for user {self._user}{offers}" + (f"\n{tried}" if tried else ""),
            where=self._name,
            hint="Write what it asks for as `login:` of the host, such as [key, otp]; then: dg-slurm login PROFILE"
            if interactive
            else None,
        )
