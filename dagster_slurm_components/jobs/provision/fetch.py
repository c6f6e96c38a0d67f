"""Fetching files by their hash, into this machine's cache."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import netrc
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from dagster_slurm_components.environments.content import Artifact
from dagster_slurm_components.jobs.provision.cache import cache_folder, file_digest, new_file
from dagster_slurm_components.jobs.provision.errors import EnvironmentFailedError
from dagster_slurm_components.jobs.provision.progress import Counter, Progress, silent

_TRIES = 3
_TIMEOUT = 60.0
_AT_ONCE = 8


def fetch(artifacts: Sequence[Artifact], progress: Progress = silent) -> list[Artifact]:
    """Return the artifacts with a ``path`` on this machine; what is not in the cache is fetched.

    Raises:
        EnvironmentFailedError: A file can't be fetched, or has another content than its lock names.
    """
    counter = Counter(progress, "fetch", sum(item.size or 0 for item in artifacts))
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda item: _fetch(item, counter), artifacts))


def cached_file(artifact: Artifact) -> Path:
    """Return where an artifact lies in this machine's cache once it is fetched."""
    return cache_folder("files", artifact.sha256[:2]) / f"{artifact.sha256}-{artifact.name}"


def _fetch(artifact: Artifact, counter: Counter) -> Artifact:
    if artifact.path is not None:
        path = Path(artifact.path)
        _check(artifact, path, "has")
    else:
        path = cached_file(artifact)
        if path.exists() and file_digest(path) != artifact.sha256:
            path.unlink()  # a broken disk or a curious hand: fetched anew
        if not path.exists():
            with new_file(path) as target:
                _download(artifact, target)
                _check(artifact, target, "arrived with")
    size = path.stat().st_size
    counter.add(size)
    return dataclasses.replace(artifact, path=str(path), size=size)


def _check(artifact: Artifact, path: Path, verb: str) -> None:
    found = file_digest(path)
    if found != artifact.sha256:
        raise EnvironmentFailedError(
            f"{artifact.name} {verb} another content than the lock names: sha256 {found}, wanted {artifact.sha256}",
            code="tampered",
            detail=[artifact.name],
            where=_without_login(artifact.url) if artifact.url else artifact.path,
            hint="Whoever serves or changed this file must be asked why; nothing was sent to the host.",
        )


def _download(artifact: Artifact, target: Path) -> None:
    url = artifact.url or ""
    failures = []
    for _ in range(_TRIES):
        try:
            answer = urllib.request.urlopen(_request(url), timeout=_TIMEOUT)  # noqa: S310 - _request checks
            with answer, target.open("wb") as file:
                _copy(answer, file)
                return
        except urllib.error.HTTPError as error:
            failures.append(f"{error.code} {error.reason}")
            if error.code < 500:
                break
        except (urllib.error.URLError, OSError) as error:
            failures.append(str(getattr(error, "reason", error)))
    if artifact.kind == "wheel" and _download_by_pip(artifact, target):
        return
    raise EnvironmentFailedError(
        f"{artifact.name} can't be fetched: {failures[-1]}",
        where=_without_login(url),
        hint="Is the package index reachable from this machine? Lock anew if the file is gone from it.",
    )


def _without_login(url: str) -> str:
    """Return a URL that may be shown: without the password that an index's address may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    while chunk := source.read(1024 * 1024):
        target.write(chunk)


def _request(url: str) -> urllib.request.Request:
    """Return the request, with the user and password of the URL or of ``~/.netrc``."""
    if not url.startswith(("https://", "http://", "file://")):
        raise EnvironmentFailedError(f"no way is known to fetch {url!r}")
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user and parts.hostname:
        try:
            known = netrc.netrc().authenticators(parts.hostname)
        except (FileNotFoundError, netrc.NetrcParseError):
            known = None
        if known:
            user, password = known[0], known[2] or ""
    request = urllib.request.Request(_without_login(url))  # noqa: S310 - the schemes are checked above
    if user:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _download_by_pip(artifact: Artifact, target: Path) -> bool:
    """Let pip try: it knows the mirrors and the logins that this machine is set up for.

    The lock's own URL may lie behind a login or outside a closed network; a mirror has the same bytes, and only
    the hash decides.
    """
    name, version = artifact.name.split("-")[:2]
    folder = target.with_name(target.name + ".d")
    folder.mkdir(mode=0o700)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{name}=={version} --hash=sha256:{artifact.sha256}\n")
    tags = artifact.name.removesuffix(".whl").split("-")[-3:]
    fit = [
        f"--{option}={tag}" for option, tag in zip(("abi", "platform"), tags[1:], strict=True) if tag != "any"
    ]
    fit = [word for joined in fit for word in _each_tag(joined)]
    python = "".join(character for character in tags[0].split(".")[-1] if character.isdigit())
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += [f"--python-version={python}", *fit, f"--dest={folder}", f"--requirement={wanted}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        found = [path for path in folder.iterdir() if file_digest(path) == artifact.sha256]
        if done.returncode == 0 and found:
            found[0].replace(target)
            return True
        return False
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _each_tag(option: str) -> list[str]:
    """Return one option for each of the tags that a wheel's name joins by dots."""
    name, _, tags = option.partition("=")
    return [f"{name}={tag}" for tag in tags.split(".")]
