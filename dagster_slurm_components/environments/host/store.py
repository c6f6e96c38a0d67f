"""The content store: what arrived in pieces or is fetched here is let in if its hash is its name."""

import base64
import concurrent.futures
import contextlib
import http.client
import netrc
import os
import shutil
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from dagster_slurm_components.environments.host.tools import CHUNK, Json, Problem, hash_of, new_file

_FETCHES = 8
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FETCH_TIMEOUT = 15.0
_UNREACHABLE = (Problem, OSError, ValueError, http.client.HTTPException)  # URLError is an OSError


def stored_path(workdir: str, digest: str) -> Path:
    """Return where an artifact lies; its folder is made."""
    path = Path(workdir, "store", digest[:2], digest)
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    return path


def admit(workdir: str, artifact: Json) -> Path:
    """Return where an artifact lies in the store, let in if its content is what its name says."""
    digest, name = artifact["sha256"], artifact["name"]
    target, incoming = stored_path(workdir, digest), Path(workdir, "store", "incoming", digest)
    if target.exists():
        if hash_of(target) == digest:
            return target
        target.unlink()
        raise Problem("tampered", "%s in the store is not what was put there; it is removed" % name, [name])
    if not artifact["pieces"]:
        raise Problem("missing", "%s is not in the store" % name, [name])
    try:
        with new_file(target) as temporary:
            with temporary.open("wb") as whole:
                for number in range(artifact["pieces"]):
                    with (incoming / str(number)).open("rb") as piece:
                        shutil.copyfileobj(piece, whole, CHUNK)
            if hash_of(temporary) != digest:
                shutil.rmtree(str(incoming), ignore_errors=True)
                raise Problem(
                    "tampered", "%s arrived with another content than the lock names" % name, [name]
                )
    except FileNotFoundError as error:
        if not target.exists():  # else another build admitted it meanwhile
            raise Problem("missing", "%s did not arrive whole (%s)" % (name, error.filename), [name])
        return target
    shutil.rmtree(str(incoming), ignore_errors=True)
    return target


def fetch(order: Json) -> Json:
    """Fetch artifacts from where their lock says, those that this host can reach; tell why others are left."""
    failed = {}
    with concurrent.futures.ThreadPoolExecutor(_FETCHES) as pool:
        calls = [(item, pool.submit(_fetch_one, order["workdir"], item)) for item in order["artifacts"]]
        for item, call in calls:
            try:
                call.result()
            except _UNREACHABLE as error:
                failed[item["name"]] = str(error)
    return {"failed": failed}


def _fetch_one(workdir: str, artifact: Json) -> None:
    with new_file(stored_path(workdir, artifact["sha256"])) as temporary:
        download(artifact["url"], temporary, _FETCH_TIMEOUT)
        if hash_of(temporary) != artifact["sha256"]:
            raise Problem("tampered", "another content than the lock names")


def download(url: str, target: Path, timeout: float, authorization: str = "") -> None:
    """Fetch a URL into a file, with a header or what ``request_for`` finds."""
    request = request_for(url, authorization)
    with urllib.request.urlopen(request, timeout=timeout) as answer, target.open("wb") as file:
        shutil.copyfileobj(answer, file, CHUNK)


def request_for(url: str, authorization: str = "") -> urllib.request.Request:
    """Return the request for a URL, with a header, else user and password of the URL, else those of ``~/.netrc``.

    The latter are sent over https alone, or to this machine: anybody on the way reads plain http.
    """
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    safe = parts.scheme == "https" or parts.hostname in _LOOPBACK
    with contextlib.suppress(FileNotFoundError, netrc.NetrcParseError):
        if not (authorization or user) and safe:
            entry = netrc.netrc(os.environ.get("NETRC")).authenticators(parts.hostname or "")
            user, password = (entry[0], entry[2] or "") if entry else (user, password)
    request = urllib.request.Request(without_login(url))
    if authorization or user:  # not for whom a redirect leads to
        request.add_unredirected_header("Authorization", authorization or basic(user, password))
    return request


def basic(user: str, password: str) -> str:
    """Return the header that tells a server who one is."""
    return "Basic " + base64.b64encode((user + ":" + password).encode()).decode()


def without_login(url: str) -> str:
    """Return a URL without the password that an index's address may hold; urllib takes it for a port and prints it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
