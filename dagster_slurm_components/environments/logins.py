"""Logins for what a lock names, looked for where uv looks: it writes none into the lock. None is kept or told."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from dagster_slurm_components.environments.host.store import basic
from dagster_slurm_components.environments.machine import find_uv
from dagster_slurm_components.errors import EnvironmentFailedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_WITH_LOGIN = re.compile(r"""https?://[^\s"'/@]+@[^\s"']+""")
_VARIABLES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX_URL")
_PORTS = {"http": 80, "https": 443}


class Login(NamedTuple):
    """Who one is on a server; the user may be a token, and the password empty."""

    user: str
    password: str


def authorizations(url: str, lock: str | None) -> Iterator[str]:
    """Yield headers to try on a URL that a lock names, one after the other while the server refuses.

    An empty one stands for the login in the URL itself, else that of ``~/.netrc``, else none.
    """
    login = login_for(url, lock) if lock and not urlsplit(url).username else None
    if login:
        yield basic(*login)
    yield ""
    if lock and (stored := _stored(url)):
        yield stored


def login_for(url: str, lock: str) -> Login | None:
    """Return the login of the index or source on the same server that shares most of the URL's path.

    It stands in ``UV_INDEX_<NAME>_USERNAME`` and ``_PASSWORD``, or in an address: in a variable of uv's, beside the
    lock, or in uv's own files of the user and the machine.
    """
    wanted, found = urlsplit(url), list[tuple[int, Login]]()
    for name, address in _addresses(Path(lock).absolute()):
        parts = urlsplit(address)
        variable = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        user = os.environ.get(f"{variable}_USERNAME", unquote(parts.username or ""))
        password = os.environ.get(f"{variable}_PASSWORD", unquote(parts.password or ""))
        if (user or password) and _server(parts) == _server(wanted):
            shared = os.path.commonpath([parts.path or "/", wanted.path or "/"])
            found.append((len(shared), Login(user, password)))
    return max(found, key=lambda each: each[0])[1] if found else None


def _server(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _addresses(lock: Path) -> Iterator[tuple[str, str]]:
    """Yield the addresses that uv knows for a lock, each with the name of its index or none."""
    for word in " ".join(os.environ.get(variable, "") for variable in _VARIABLES).split():
        name, _, address = word.rpartition("=") if re.match(r"[\w.-]+=", word) else ("", "", word)
        yield name, address
    if lock.suffix != ".lock" and lock.is_file():
        yield from (("", address) for address in _WITH_LOGIN.findall(lock.read_text(encoding="utf-8")))
    for file in _settings(lock):
        text = file.read_text(encoding="utf-8")
        yield from (("", address) for address in _WITH_LOGIN.findall(text))
        for index in _table(file, text).get("index", []):
            yield index.get("name", ""), index.get("url", "")


def _settings(lock: Path) -> list[Path]:
    """Return the files that uv reads beside a lock or above it, and those of the user and the machine."""
    beside = (folder / name for folder in lock.parents for name in ("uv.toml", "pyproject.toml"))
    nearest = next(
        (file for file in beside if file.is_file() and _table(file, file.read_text(encoding="utf-8"))), None
    )
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "uv" / "uv.toml"
    named = os.environ.get("UV_CONFIG_FILE")
    files = [nearest, Path(named) if named else None, user, Path("/etc/uv/uv.toml")]
    return [file for file in files if file is not None and file.is_file()]


def _table(file: Path, text: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EnvironmentFailedError(f"can't be read: {error}", where=str(file)) from error
    table: dict[str, Any] = (
        document.get("tool", {}).get("uv", {}) if file.name == "pyproject.toml" else document
    )
    return table


def _stored(url: str) -> str:
    """Return the header of a login that `uv auth login` stored; empty without one, or where uv (0.7) has no store."""
    try:
        argv = [find_uv()[0], "auth", "helper", "--preview-features=auth-helper", "--protocol=bazel", "get"]
    except EnvironmentFailedError:  # conda's packages can be had without uv
        return ""
    done = subprocess.run(argv, input=json.dumps({"uri": url}).encode(), capture_output=True, check=False)
    headers = json.loads(done.stdout)["headers"] if done.returncode == 0 else {}
    return str(headers.get("Authorization", [""])[0])
