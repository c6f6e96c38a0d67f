"""Logging in over ssh with keys: from a file, from the ssh agent, from ``~/.ssh``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko

from dagster_slurm_components.errors import HostRefusedError, HostUnreachableError

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


class KeyLogin:
    """Tries keys until one is accepted. paramiko calls ``authenticate`` when the host key is accepted.

    Not paramiko's own way of trying keys: when a host wants a second factor, that asks for it on standard input.

    Args:
        name: The host's name for messages.
        user: The user there.
        key_file: The one key file to use, if the profile names one.
        key_files: Further key files, used if they exist.
    """

    def __init__(self, name: str, user: str, key_file: str | None, key_files: Sequence[str]) -> None:
        self._name = name
        self._user = user
        self._key_file = key_file
        self._key_files = key_files
        self._notes: list[str] = []

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Log in.

        Raises:
            HostRefusedError: No key was accepted, or the host wants more than a key.
            HostUnreachableError: The connection was lost meanwhile.
        """
        self._notes = []
        for label, key in self._keys():
            try:
                wanted = transport.auth_publickey(self._user, key)
            except paramiko.BadAuthenticationType as error:
                raise self._refused("takes no keys", error.allowed_types) from error
            except paramiko.AuthenticationException as error:
                self._check_connection(transport, error)
                self._notes.append(f"{label}: not accepted")
                continue
            if wanted:
                raise self._refused(f"accepted {label} and wants more", wanted)
            return []
        raise self._refused("accepted no key", self._offered(transport))

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
            yield file, paramiko.PKey.from_path(file)
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
            hint="Log in once with: dg-slurm login PROFILE" if interactive else None,
        )
