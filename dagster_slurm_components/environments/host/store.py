"""The content store: what arrived in pieces or is fetched here is let in if its hash is its name."""

import concurrent.futures
import contextlib
import os
import shutil
import urllib.request

from dagster_slurm_components.environments.host.files import CHUNK, Json, Problem, hash_of

_FETCHES = 8
_FETCH_TIMEOUT = 15.0


def stored_path(workdir: str, digest: str) -> str:
    """Return where an artifact lies."""
    return os.path.join(workdir, "store", digest[:2], digest)


def admit(workdir: str, artifact: Json) -> None:
    """Let an artifact into the store if its content is what its name says; check one that is there already."""
    digest, name = artifact["sha256"], artifact["name"]
    target = stored_path(workdir, digest)
    if os.path.exists(target):
        if hash_of(target) != digest:
            os.unlink(target)
            raise Problem(
                "tampered", "%s in the store is not what was put there; it is removed" % name, [name]
            )
        return
    incoming = os.path.join(workdir, "store", "incoming", digest)
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    temporary = "%s.tmp-%s-%d" % (target, os.uname().nodename, os.getpid())
    try:
        with open(temporary, "wb") as whole:
            for number in range(artifact["pieces"]):
                with open(os.path.join(incoming, str(number)), "rb") as piece:
                    shutil.copyfileobj(piece, whole, CHUNK)
        if not artifact["pieces"]:
            raise Problem("missing", "%s is not in the store" % name, [name])
        if hash_of(temporary) != digest:
            shutil.rmtree(incoming, ignore_errors=True)
            raise Problem("tampered", "%s arrived with another content than the lock names" % name, [name])
        os.rename(temporary, target)
    except FileNotFoundError as error:
        if os.path.exists(target):  # another build admitted it meanwhile
            return
        raise Problem("missing", "%s did not arrive whole (%s)" % (name, error.filename), [name])
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    shutil.rmtree(incoming, ignore_errors=True)


def fetch(order: Json) -> Json:
    """Fetch artifacts from where their lock says, those that this host can reach; tell why others are left."""
    failed = {}
    with concurrent.futures.ThreadPoolExecutor(_FETCHES) as pool:
        tried = [
            (artifact, pool.submit(fetch_one, order["workdir"], artifact)) for artifact in order["artifacts"]
        ]
        for artifact, future in tried:
            try:
                future.result()
            except (Problem, OSError, ValueError) as error:  # URLError is an OSError
                failed[artifact["name"]] = str(error)
    return {"failed": failed}


def fetch_one(workdir: str, artifact: Json) -> None:
    """Fetch one artifact into the store."""
    target = stored_path(workdir, artifact["sha256"])
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    temporary = "%s.tmp-%s-%d" % (target, os.uname().nodename, os.getpid())
    try:
        with urllib.request.urlopen(artifact["url"], timeout=_FETCH_TIMEOUT) as answer:
            with open(temporary, "wb") as file:
                shutil.copyfileobj(answer, file, CHUNK)
        if hash_of(temporary) != artifact["sha256"]:
            raise Problem("tampered", "another content than the lock names")
        os.rename(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
