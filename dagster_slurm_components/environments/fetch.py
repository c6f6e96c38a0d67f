"""Fetching files by their hash, into this machine's cache."""

import concurrent.futures
import dataclasses
import http.client
import subprocess
import sys
import tempfile
import urllib.error
from collections.abc import Sequence
from pathlib import Path

from dagster_slurm_components.environments.content import Artifact, Progress, silent
from dagster_slurm_components.environments.host.store import download, without_login
from dagster_slurm_components.environments.host.tools import hash_of, new_file
from dagster_slurm_components.environments.logins import authorizations
from dagster_slurm_components.environments.machine import cache_folder, use
from dagster_slurm_components.errors import EnvironmentFailedError

_TRIES = 3
_TIMEOUT = 60.0
_REFUSED = ("401", "403", "404")
"""What a server answers whom it does not know; some say that there is nothing."""
_HINT = "Is the package index reachable from this machine? Lock anew if the file is gone from it."
_LOGIN_HINT = (
    "The login is looked for in UV_INDEX_<NAME>_USERNAME and _PASSWORD, in uv's settings, in ~/.netrc (mode 0600), and"
    " where `uv auth login` puts it."
)


def fetch(artifacts: Sequence[Artifact], progress: Progress = silent) -> list[Artifact]:
    """Return the artifacts with a ``path`` on this machine; what is not in the cache is fetched.

    Raises:
        EnvironmentFailedError: A file can't be fetched, or has another content than its lock names.
    """
    total = sum(item.size or 0 for item in artifacts)
    files: list[Artifact] = []
    progress("fetch", 0, total)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for file in pool.map(_fetch, artifacts):
            files.append(file)
            progress("fetch", sum(each.size or 0 for each in files), total)
    return files


def cached_file(artifact: Artifact) -> Path:
    """Return where an artifact lies in this machine's cache once it is fetched."""
    return cache_folder("files", artifact.sha256[:2]) / f"{artifact.sha256}-{artifact.name}"


def _fetch(artifact: Artifact) -> Artifact:
    path = Path(artifact.path or cached_file(artifact))
    if artifact.path is not None:
        _check(artifact, path, "has")
    # Spoilt by a broken disk or a curious hand, it is fetched anew.
    elif not path.exists() or hash_of(path) != artifact.sha256:
        with new_file(path) as target:
            _download(artifact, target)
            _check(artifact, target, "arrived with")
    else:
        use(path)
    return dataclasses.replace(artifact, path=str(path), size=path.stat().st_size)


def _check(artifact: Artifact, path: Path, verb: str) -> None:
    digest = hash_of(path)
    if digest != artifact.sha256:
        raise EnvironmentFailedError(
            f"{artifact.name} {verb} another content than the lock names: sha256 {digest}, wanted {artifact.sha256}",
            code="tampered",
            detail=[artifact.name],
            where=without_login(artifact.url) if artifact.url else artifact.path,
            hint="Whoever serves or changed this file must be asked why; nothing was sent to the host.",
        )


def _download(artifact: Artifact, target: Path) -> None:
    url, failure = artifact.url or "", ""
    if not url.startswith(("https://", "http://", "file://")):
        raise EnvironmentFailedError(f"no way is known to fetch {without_login(url)!r}")
    for authorization in authorizations(url, artifact.lock):
        failure = _failure(url, target, authorization)
        if not failure:
            return
        if not failure.startswith(_REFUSED):
            break
    if artifact.kind == "wheel" and _download_by_pip(artifact, target):
        return
    raise EnvironmentFailedError(
        f"{artifact.name} can't be fetched: {failure}",
        where=without_login(url),
        hint=_LOGIN_HINT if artifact.lock and failure.startswith(_REFUSED[:2]) else _HINT,
    )


def _failure(url: str, target: Path, authorization: str) -> str:
    """Fetch a URL, with patience for a server that fails; return why it can't be had, empty if it is here."""
    failure = ""
    for _ in range(_TRIES):
        try:
            download(url, target, _TIMEOUT, authorization)
            return ""
        except urllib.error.HTTPError as error:
            failure = f"{error.code} {error.reason}"
            if error.code < 500:
                break
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            failure = str(getattr(error, "reason", error))
    return failure


def _download_by_pip(artifact: Artifact, target: Path) -> bool:
    """Let pip try: it knows the mirrors and the logins that this machine is set up for.

    The lock's own URL may lie behind a login or outside a closed network; a mirror has the same bytes, and only
    the hash decides.
    """
    name, version = artifact.name.split("-")[:2]
    python, abi, platform = artifact.name.removesuffix(".whl").split("-")[-3:]
    # A wheel's name joins several tags by dots; pip wants each on its own.
    fit = [f"--abi={tag}" for tag in abi.split(".") if tag != "any"]
    fit += [f"--platform={tag}" for tag in platform.split(".") if tag != "any"]
    fit.append("--python-version=" + "".join(filter(str.isdigit, python.split(".")[-1])))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{name}=={version} --hash=sha256:{artifact.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [*fit, f"--dest={folder}", f"--requirement={wanted}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        files = [path for path in Path(folder).iterdir() if hash_of(path) == artifact.sha256]
        if done.returncode == 0 and files:
            files[0].replace(target)
            return True
    return False
