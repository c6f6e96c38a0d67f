# ruff: noqa: B904, B905, N818, PLC0415, PLW1510, S310, SIM117, T201, UP006, UP022, UP031, UP035, UP045
"""Makes, checks, lists and removes environments on a host. Standard library only, Python 3.6 or newer.

Runs there for one action and ends: ``python3 -c BOOTSTRAP LENGTH ACTION`` reads this file and one JSON object
from standard input, and prints one JSON object. It is told what to run as argument lists; nothing is a shell text.

Folders below the profile's workdir::

    store/ab/abc...          artifacts, named after the SHA-256 of their content
    store/incoming/abc.../N  pieces of an artifact that is on its way
    store/cache/             what the packers keep between builds
    envs/KEY/                an environment, there with its manifest ``.ready`` or not there at all
    envs/.building-KEY-*/    one that is being made, or whose maker was killed
"""

import concurrent.futures
import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

Json = Dict[str, Any]
Env = Dict[str, str]

_CHUNK = 4 * 1024 * 1024
_TAIL = 4000
_FETCHES = 8
_FETCH_TIMEOUT = 15.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DAY = 86400.0


class Problem(Exception):
    """What can't be done; ``code`` is a short stable word for programs."""

    def __init__(self, code: str, message: str, detail: Optional[List[str]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail or []


# ---------------------------------------------------------------------------------------------------- LOCKS

_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_BEAT = 10.0
_STALE = 120.0


@contextlib.contextmanager
def locked(path: str, patience: float) -> Iterator[None]:
    """Hold the lock file at ``path``, for all processes of all machines that see it."""
    deadline = time.monotonic() + patience
    while True:
        release = take(path)
        if release is not None:
            break
        if time.monotonic() > deadline:
            raise Problem("locked", "another build has held %s for %d s" % (path, patience))
        time.sleep(0.1)
    try:
        yield
    finally:
        release()


def take(path: str) -> Optional[Callable[[], None]]:
    """Take the lock now; return what releases it, or None while somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_FLOCK:  # Lustre mounted without -o flock, some NFS
            return take_folder(path + ".d")
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return None
        raise
    return lambda: os.close(descriptor)


def take_folder(path: str) -> Optional[Callable[[], None]]:
    """Take a lock where flock does not work: a folder whose holder touches it again and again."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(path).st_mtime > _STALE:
                # Renamed first, so that of several that find it stale one removes it and none a fresh one.
                os.rename(path, "%s.stale-%d" % (path, os.stat(path).st_ino))
        return None
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, daemon=True).start()

    def release() -> None:
        done.set()
        with contextlib.suppress(OSError):
            os.rmdir(path)

    return release


# ------------------------------------------------------------------------------------------------- COMMANDS


def plain_environment() -> Env:
    """Return our own variables, without those that would bend what a packer does."""
    bending = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA", "PIXI", "MAMBA", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(bending)}


def activated(activation: Optional[Json]) -> Env:
    """Return the variables after the modules and shell files that the environment is made under."""
    env = plain_environment()
    if not activation:
        return env
    with tempfile.TemporaryDirectory() as folder:
        write(os.path.join(folder, "activate.sh"), activation["script"])
        write(os.path.join(folder, "activate.args"), activation["args"])
        for name, text in activation["files"].items():
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            write(os.path.join(folder, name), text)
        env["DAGSTER_SLURM_RUN_DIR"] = folder
        show = '. "$DAGSTER_SLURM_RUN_DIR/activate.sh" >&2 </dev/null; exec env -0'
        done = subprocess.run(
            ["bash", "-c", show],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    if done.returncode != 0:
        raise Problem("activation_failed", tail(done.stderr) or "the modules or setup files failed")
    found = {}
    for entry in done.stdout.split(b"\0"):
        name, _, value = os.fsdecode(entry).partition("=")
        if name and name != "DAGSTER_SLURM_RUN_DIR":
            found[name] = value
    return found


def execute(argv: List[str], env: Env, cwd: Optional[str] = None) -> bytes:
    """Run a command and return what it printed; what it printed as errors is the message of its failure."""
    try:
        done = subprocess.run(
            argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise Problem("build_failed", "%s can't be run: %s" % (argv[0], error.strerror))
    if done.returncode != 0:
        said = tail(done.stderr) or tail(done.stdout) or "it said nothing"
        full = "No space left on device" in said or "quota exceeded" in said.lower()
        text = "%s ended with %d: %s" % (os.path.basename(argv[0]), done.returncode, said)
        raise Problem("disk_full" if full else "build_failed", text)
    return done.stdout


def tail(output: bytes) -> str:
    """Return the end of what a command printed."""
    return output.decode("utf-8", "replace").strip()[-_TAIL:]


def write(path: str, text: str) -> None:
    """Write a new file, 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))


# ---------------------------------------------------------------------------------------------------- PROBE

_ASK = (
    "import sys, os, sysconfig;"
    "base = getattr(sys, '_base_executable', None) or sys.executable;"
    "print(os.path.realpath(base));"
    "print('%d.%d.%d' % sys.version_info[:3]);"
    "print(sys.implementation.name);"
    "print('t' if sysconfig.get_config_var('Py_GIL_DISABLED') else '')"
)


def probe(order: Json) -> Json:
    """Return the platform and the Pythons that are here, under the given modules and setup files."""
    env = activated(order.get("activation"))
    path = env.get("PATH", os.defpath)
    asked = order.get("python")
    names = [asked] if asked else ["python3"] + ["python3.%d" % minor for minor in range(16, 7, -1)]
    programs = [shutil.which(os.path.expanduser(name), path=path) for name in names]
    found: List[Json] = []
    for program in dict.fromkeys(filter(None, programs)):
        with contextlib.suppress(Problem):
            lines = execute([program, "-I", "-c", _ASK], env).decode("utf-8", "surrogateescape").split("\n")
            python = dict(zip(("path", "version", "implementation", "abi_flags"), lines))
            if python not in found:
                found.append(python)
    libc, version = c_library()
    return {
        "system": sys.platform,
        "machine": os.uname().machine,
        "libc": libc,
        "libc_version": version,
        "interpreters": found,
    }


def c_library() -> Tuple[str, List[int]]:
    """Return the C library and its version; on macOS the version of the system."""
    if sys.platform == "darwin":
        import platform

        return "", [int(part) for part in (platform.mac_ver()[0] + ".0").split(".")[:2]]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name == "glibc":
            return name, [int(part) for part in version.split(".")[:2]]
    for loader in glob.glob("/lib/ld-musl-*.so.1"):
        done = subprocess.run([loader], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in done.stderr.decode("ascii", "replace").splitlines():
            if line.startswith("Version "):
                return "musl", [int(part) for part in line.split()[1].split(".")[:2]]
    return "", [0, 0]


# ---------------------------------------------------------------------------------------------------- STORE


def stored_path(workdir: str, digest: str) -> str:
    """Return where an artifact lies."""
    return os.path.join(workdir, "store", digest[:2], digest)


def hash_of(path: str) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


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
                    shutil.copyfileobj(piece, whole, _CHUNK)
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
                shutil.copyfileobj(answer, file, _CHUNK)
        if hash_of(temporary) != artifact["sha256"]:
            raise Problem("tampered", "another content than the lock names")
        os.rename(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


# ---------------------------------------------------------------------------------------------------- BUILD


def ready(folder: str) -> Optional[Json]:
    """Return the manifest of an environment that is there."""
    try:
        with open(os.path.join(folder, ".ready"), encoding="utf-8") as file:
            manifest: Json = json.load(file)
            return manifest
    except (FileNotFoundError, NotADirectoryError):
        return None


def build(order: Json) -> Json:
    """Make an environment, unless it is there; of all that want it at once one makes it."""
    envs = os.path.join(order["workdir"], "envs")
    target = os.path.join(envs, order["key"])
    os.makedirs(envs, 0o700, exist_ok=True)
    began = time.time()
    with locked(os.path.join(envs, ".lock-" + order["key"]), order["patience"]):
        manifest = ready(target)
        if manifest is not None and not order.get("rebuild"):
            for artifact in order["artifacts"]:  # sent though another machine had sent it just now
                remove_tree(os.path.join(order["workdir"], "store", "incoming", artifact["sha256"]))
            return {"state": "ready", "manifest": manifest, "seconds": time.time() - began}
        for left in glob.glob(glob.escape(os.path.join(envs, ".building-%s-" % order["key"])) + "*"):
            remove_tree(left)
        folder = tempfile.mkdtemp(prefix=".building-%s-" % order["key"], dir=envs)
        try:
            manifest = make(order, folder)
            put_away(target)
            os.rename(folder, target)
        except BaseException:
            remove_tree(folder)
            raise
    for old in glob.glob(os.path.join(glob.escape(envs), ".removing-%s-*" % order["key"])):
        remove_tree(old)
    return {"state": "built", "manifest": manifest, "seconds": time.time() - began}


def put_away(target: str) -> Optional[str]:
    """Move an environment out of sight; what runs in it keeps its open files."""
    folder, key = os.path.split(target)
    aside = os.path.join(folder, ".removing-%s-%s-%d" % (key, os.uname().nodename, os.getpid()))
    try:
        os.rename(target, aside)
    except FileNotFoundError:
        return None
    return aside


def make(order: Json, folder: str) -> Json:
    """Make an environment in a folder that will be renamed."""
    places = {
        "prefix": os.path.join(folder, "prefix"),
        "content": os.path.join(folder, "content"),
        "cache": os.path.join(order["workdir"], "store", "cache"),
    }
    lay_out(order, folder, places)
    for archive in order["unpack"]:
        unpack(os.path.join(places["content"], archive), places["prefix"])
    env = activated(order.get("activation"))
    for command in order["commands"]:
        given = {name: word(value, places) for name, value in command["env"].items()}
        execute([word(part, places) for part in command["argv"]], dict(env, **given), folder)
    name_place(places["prefix"], os.path.join(order["workdir"], "envs", order["key"], "prefix"))
    if order["entry"] != "prefix":
        os.rename(os.path.join(places["content"], order["entry"]), os.path.join(folder, order["entry"]))
    remove_tree(places["content"])
    manifest = dict(order["manifest"], created=time.time(), entry=order["entry"])
    if order.get("check"):
        manifest["installed"] = check(order["check"], folder, manifest, published=False)
    manifest["bytes"], manifest["inodes"] = size_of(folder)
    write(os.path.join(folder, ".used"), "")
    write(os.path.join(folder, ".ready"), json.dumps(manifest, sort_keys=True))
    return manifest


def lay_out(order: Json, folder: str, places: Env) -> None:
    """Put the artifacts and the plan's texts into ``content``, by name."""
    os.mkdir(places["content"], 0o700)
    os.makedirs(places["cache"], 0o700, exist_ok=True)
    for artifact in order["artifacts"]:
        admit(order["workdir"], artifact)
        source = stored_path(order["workdir"], artifact["sha256"])
        target = os.path.join(places["content"], artifact["name"])
        if artifact["tool"]:
            shutil.copyfile(source, target)
            os.chmod(target, 0o700)
            continue
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            os.symlink(source, target)
    for name, text in order["files"].items():
        write(os.path.join(places["content"], name), text)


def word(value: Any, places: Env) -> str:
    """Return a word of a command, its place filled in."""
    if isinstance(value, dict):
        return os.path.join(places[value["at"]], value["path"]).rstrip("/")
    return str(value)


def name_place(prefix: str, target: str) -> None:
    """Let scripts that name the place where they were made name the one where they will lie."""
    for script in glob.glob(os.path.join(glob.escape(prefix), "bin", "*")):
        if os.path.islink(script) or not os.path.isfile(script):
            continue
        with open(script, "rb") as file:
            content = file.read() if file.read(2) == b"#!" else b""
        if os.fsencode(prefix) in content:
            mode = os.stat(script).st_mode
            os.unlink(script)  # it may share its content with the packer's cache
            write(script, (b"#!" + content).replace(os.fsencode(prefix), os.fsencode(target)).decode("utf-8"))
            os.chmod(script, stat.S_IMODE(mode))


def unpack(archive: str, prefix: str) -> None:
    """Unpack a tar of a prefix; nothing of it may lie or point outside."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = os.path.normpath(member.name)
            if (
                os.path.isabs(member.name)
                or name.startswith("..")
                or not (member.isreg() or member.isdir() or member.issym() or member.islnk())
            ):
                raise Problem("tampered", "the archive holds %r, which may not be in one" % member.name)
            member.mode = (member.mode or 0o600) & 0o700
            tar.extract(member, prefix, set_attrs=not member.isdir())


def check(order: Json, folder: str, manifest: Json, *, published: bool) -> Optional[Json]:
    """Let the environment's own interpreter compare itself with the manifest; a new one also tells what is there."""
    with tempfile.TemporaryDirectory() as aside:
        program, wanted = os.path.join(aside, "verify.py"), os.path.join(aside, "manifest.json")
        write(program, order["program"])
        write(wanted, json.dumps(manifest))
        python = os.path.join(folder, "prefix", "bin", "python")
        argv = [python, "-I", program, order["mode"], wanted] + ([folder] if published else [])
        done = subprocess.run(
            argv,
            env=plain_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    if done.returncode == 0:
        return None if published else json.loads(done.stdout.decode("utf-8"))
    if done.returncode == 3:
        raise Problem("differs", "the environment is not what the lock says", tail(done.stderr).splitlines())
    raise Problem("build_failed", "its Python can't check it: " + tail(done.stderr))


def size_of(folder: str) -> Tuple[int, int]:
    """Return bytes and inodes of a folder; a file that is also elsewhere (a hard link) counts here too."""
    total, count = 0, 1
    for where, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        for name in files:
            total += os.lstat(os.path.join(where, name)).st_size
    return total, count


def remove_tree(path: str) -> None:
    """Remove a folder; nothing there is fine."""
    if not os.path.lexists(path):
        return
    try:
        shutil.rmtree(path)
    except PermissionError:  # packages may bring folders without write permission
        for folder, _, _ in os.walk(path):
            os.chmod(folder, stat.S_IRWXU)
        shutil.rmtree(path)


# ------------------------------------------------------------------------------------- LIST, VERIFY AND PRUNE


def environments(workdir: str) -> Iterator[Tuple[str, str, Json]]:
    """Yield key, folder and manifest of each environment."""
    for folder in sorted(glob.glob(os.path.join(glob.escape(workdir), "envs", "*"))):
        manifest = ready(folder)
        if manifest is not None:
            yield os.path.basename(folder), folder, manifest


def show(order: Json) -> Json:
    """Return all environments, with when they were last used, and the store's size."""
    found = []
    for _, folder, manifest in environments(order["workdir"]):
        with contextlib.suppress(FileNotFoundError):
            manifest["used"] = os.stat(os.path.join(folder, ".used")).st_mtime
        manifest.pop("installed", None)
        found.append(manifest)
    store = os.path.join(order["workdir"], "store")
    total, count = size_of(store) if os.path.isdir(store) else (0, 0)
    return {"environments": found, "store": {"bytes": total, "inodes": count}}


def verify(order: Json) -> Json:
    """Return what each environment differs in from its manifest."""
    results: Dict[str, List[str]] = {}
    for key, folder, manifest in environments(order["workdir"]):
        if order["keys"] and key not in order["keys"]:
            continue
        try:
            if not os.path.exists(os.path.join(folder, manifest["entry"])):
                raise Problem("differs", "", ["%s is missing" % manifest["entry"]])
            if manifest.get("installed") is not None:
                check(order["check"], folder, manifest, published=True)
            elif manifest["entry"] != "prefix" and order["check"]["mode"] == "full":
                name, digest, _ = manifest["artifacts"][0]
                if hash_of(os.path.join(folder, manifest["entry"])) != digest:
                    raise Problem("differs", "", ["%s has another content than was sent" % name])
            results[key] = []
        except Problem as problem:
            results[key] = problem.detail or [problem.message]
    return {"differences": results}


def in_use(workdir: str, keys: List[str]) -> List[str]:
    """Return the keys that a job which has not ended refers to: submitted, and no exit in its status."""
    used = set()
    for args in glob.glob(os.path.join(glob.escape(workdir), "runs", "**", "activate.args"), recursive=True):
        folder = os.path.dirname(args)
        with contextlib.suppress(OSError):
            with open(args, "rb") as file:
                named = file.read()
            mine = [key for key in keys if key.encode() in named]
            if mine and not ended(folder):
                used.update(mine)
    return sorted(used)


def ended(folder: str) -> bool:
    """Return whether the job of a run directory has ended."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "status"), "rb") as file:
        return any(line.startswith(b"exit=") for line in file.read().rpartition(b"restart=")[2].splitlines())
    return False


def prune(order: Json) -> Json:
    """Remove environments that nobody refers to and nobody used for a while, and what only they were made from."""
    workdir, now = order["workdir"], time.time()
    rows = [(key, folder, manifest) for key, folder, manifest in environments(workdir)]
    running = in_use(workdir, [key for key, _, _ in rows])
    removed, kept = [], {}
    for key, folder, manifest in rows:
        try:
            used = os.stat(os.path.join(folder, ".used")).st_mtime
        except FileNotFoundError:
            used = manifest["created"]
        if key in order["keep"]:
            kept[key] = "a script of this profile needs it"
        elif key in running:
            kept[key] = "a job that has not ended uses it"
        elif now - used < order["unused_for"]:
            kept[key] = "used %.1f days ago" % ((now - used) / _DAY)
        elif order["dry_run"] or take_away(workdir, key):
            removed.append({"key": key, "name": manifest["name"], "bytes": manifest["bytes"], "used": used})
        else:
            kept[key] = "it is being built"
    freed = 0
    if not order["dry_run"]:
        freed = sweep(workdir, removed != [])
    return {"removed": removed, "kept": kept, "freed": freed}


def take_away(workdir: str, key: str) -> bool:
    """Remove an environment in two steps: out of sight at once, then its files."""
    envs = os.path.join(workdir, "envs")
    release = take(os.path.join(envs, ".lock-" + key))
    if release is None:
        return False
    try:
        aside = put_away(os.path.join(envs, key))
    finally:
        release()
    if aside is not None:
        remove_tree(aside)
    return True


def sweep(workdir: str, shared: bool) -> int:
    """Remove artifacts that no environment was made from, and what killed builds and uploads left; return bytes."""
    old = time.time() - _DAY
    needed = {row[1] for _, _, manifest in environments(workdir) for row in manifest["artifacts"]}
    store = os.path.join(glob.escape(workdir), "store")
    left = glob.glob(os.path.join(store, "incoming", "*"))
    left += [p for p in glob.glob(os.path.join(store, "??", "*")) if os.path.basename(p) not in needed]
    left = [path for path in left if os.stat(path).st_mtime < old]
    left += glob.glob(os.path.join(glob.escape(workdir), "envs", ".removing-*"))
    if shared:  # hard links: what living environments share with the cache stays theirs
        left.append(os.path.join(workdir, "store", "cache"))
    freed = 0
    for path in left:
        if os.path.isdir(path):
            freed += size_of(path)[0]
            remove_tree(path)
        elif os.path.exists(path):
            freed += os.stat(path).st_size
            os.unlink(path)
    return freed


# ----------------------------------------------------------------------------------------------------- MAIN

ACTIONS: Dict[str, Callable[[Json], Json]] = {
    "probe": probe,
    "fetch": fetch,
    "build": build,
    "list": show,
    "verify": verify,
    "prune": prune,
}


def main(action: str, order: Json) -> Json:
    """Do one action; whatever goes wrong is an answer as well."""
    try:
        return {"ok": True, "result": ACTIONS[action](order)}
    except Problem as problem:
        return {"ok": False, "code": problem.code, "message": problem.message, "detail": problem.detail}
    except OSError as error:
        code = "disk_full" if error.errno in _FULL else "failed"
        return {
            "ok": False,
            "code": code,
            "message": "%s: %s" % (error.filename, error.strerror),
            "detail": [],
        }


if __name__ == "__main__":
    os.umask(0o077)
    print(json.dumps(main(sys.argv[-1], json.loads(sys.stdin.buffer.read().decode("utf-8")))))
