"""Builds an environment once, whoever wants it at the same time, in a folder aside, and publishes it by rename."""

import contextlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Optional

from dagster_slurm_components.environments.host.store import admit
from dagster_slurm_components.environments.host.tools import (
    AnyPath,
    Env,
    Json,
    Problem,
    activated,
    execute,
    hash_of,
    plain_environment,
    run,
    size_of,
    tail,
    write,
)
from dagster_slurm_components.hosts.satellite.files import read_json, remove_tree
from dagster_slurm_components.hosts.satellite.locks import locked

_UV = {"UV_NO_CONFIG": "1", "UV_OFFLINE": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
# `install`, for `sync` would remove what conda packages brought; the pins name all that is to be there.
_INSTALL = ["pip", "install", "--quiet", "--require-hashes", "--no-deps", "--no-index", "--no-build"]
_PULL = {
    "apptainer": ["apptainer", "pull", "--force", "TARGET", "IMAGE"],
    "singularity": ["singularity", "pull", "--force", "TARGET", "IMAGE"],
    "pyxis": ["enroot", "import", "--output", "TARGET", "IMAGE"],
}
"""The command that makes a file of an image, by runtime."""
_CACHES = ("APPTAINER_CACHEDIR", "SINGULARITY_CACHEDIR", "ENROOT_CACHE_PATH")


def ready(folder: Path) -> Optional[Json]:
    """Return the manifest of an environment that is there."""
    manifest: Optional[Json] = read_json(os.fsencode(folder / ".ready"))
    return manifest


def lock_of(envs: AnyPath, key: str) -> bytes:
    """Return the lock under which an environment is made or put away."""
    return os.fsencode(Path(envs, ".lock-" + key))


def build(order: Json) -> Json:
    """Make an environment, unless it is there; of all that want it at once one makes it."""
    workdir, key = Path(order["workdir"]), order["key"]
    envs = workdir / "envs"
    envs.mkdir(0o700, parents=True, exist_ok=True)
    with locked(lock_of(envs, key), order["patience"], pause=0.5):
        manifest = ready(envs / key)
        if manifest is not None and not order.get("rebuild"):
            for artifact in order["artifacts"]:  # sent though another machine had sent it just now
                remove_tree(str(workdir / "store" / "incoming" / artifact["sha256"]))
            return {"state": "ready", "manifest": manifest}
        remove_left(envs, ".building-%s-" % key)
        folder = Path(tempfile.mkdtemp(prefix=".building-%s-" % key, dir=str(envs)))
        try:
            manifest = _make(order, folder)
            put_away(envs / key)
            folder.rename(envs / key)
        except BaseException:
            remove_tree(str(folder))
            raise
    remove_left(envs, ".removing-%s-" % key)
    return {"state": "built", "manifest": manifest}


def put_away(target: Path) -> None:
    """Move an environment out of sight; what runs in it keeps its open files."""
    aside = ".removing-%s-%s-%d" % (target.name, os.uname().nodename, os.getpid())
    with contextlib.suppress(FileNotFoundError):
        target.rename(target.with_name(aside))


def remove_left(envs: Path, beginning: str) -> None:
    """Remove what an earlier build, or one just now, has left under names that begin so."""
    for path in list(envs.glob(beginning + "*")):
        remove_tree(str(path))


def _make(order: Json, folder: Path) -> Json:
    manifest = dict(order["manifest"], created=time.time())
    entry = folder / manifest["entry"]
    if manifest["form"] == "squashfs":
        _make_image(order, entry, manifest)
    elif manifest["form"] == "image":
        _lay_out(order, folder / "content")
        _pull(order, folder / "content", entry, activated(order["activation"]))
        remove_tree(str(folder / "content"))
        manifest.update(image=hash_of(entry), installed=None)
    else:
        _install(order, folder, Path(order["workdir"], "store", "cache"))
        if manifest["entry"] != "prefix":
            (folder / "content" / manifest["entry"]).rename(entry)
        remove_tree(str(folder / "content"))
        manifest["installed"] = check(order["check"], folder, manifest, published=False)
    manifest["bytes"], manifest["inodes"] = size_of(folder)
    write(folder / ".used", "")
    write(folder / ".ready", json.dumps(manifest, sort_keys=True))
    return manifest


def _make_image(order: Json, image: Path, manifest: Json) -> None:
    """Make an environment as one file, and note in its manifest what it holds.

    All other files, the packer's cache too, lie in this machine's own temporary folder: on the file system of the
    working folder they would count, if only for the time of the build.
    """
    aside = Path(tempfile.mkdtemp(prefix="dagster-slurm-build-"))
    try:
        env = _install(order, aside, aside / "cache")
        manifest["installed"] = check(order["check"], aside, manifest, published=False)
        _squash(aside / "prefix", image, env)
    finally:
        remove_tree(str(aside))
    manifest["image"] = hash_of(image)


def _squash(prefix: Path, image: Path, env: Env) -> None:
    path = env.get("PATH", os.defpath)
    program = shutil.which("mksquashfs", path=path + ":/usr/sbin:/sbin")
    if program is None:
        raise Problem(
            "no_squashfs", "`form: squashfs` needs the program mksquashfs, which is not on PATH (%s)" % path
        )
    # zstd at level 3 takes a seventh of gzip's time and unpacks faster; old squashfs-tools are built without it.
    usage = run([program, "-help"], env)
    has_zstd = b"zstd" in usage.stdout + usage.stderr
    packed = ["zstd", "-Xcompression-level", "3"] if has_zstd else ["gzip"]
    options = ["-noappend", "-quiet", "-no-progress", "-no-xattrs", "-comp"]
    execute([program, str(prefix), str(image), *options, *packed], env)


def _pull(order: Json, content: Path, target: Path, env: Env) -> None:
    """Let a container runtime fetch an image, or make one of an archive: the file ``target``, only to be read.

    What an archive is called is relative to ``content``. The layers lie in the store's cache, unless the user has
    chosen another: a fetch that was broken off goes on.
    """
    wanted = order["manifest"]["inputs"]
    words = {"TARGET": str(target), "IMAGE": wanted["image"]}
    argv = [words.get(word, word) for word in _PULL[wanted["runtime"]]]
    if shutil.which(argv[0], path=env.get("PATH", os.defpath)) is None:
        raise Problem(
            "no_runtime", "there is no %s on this host, which is to fetch %s" % (argv[0], wanted["image"])
        )
    cache = Path(order["workdir"], "store", "cache", "images")
    cache.mkdir(0o700, parents=True, exist_ok=True)
    execute(argv, dict(dict.fromkeys(_CACHES, str(cache)), **env), content)
    target.chmod(0o400)


def _install(order: Json, folder: Path, cache: Path) -> Env:
    """Make the prefix of an environment in a folder, beside its ``content``; return the variables it was made under."""
    prefix, content = folder / "prefix", folder / "content"
    _lay_out(order, content)
    for archive in order["unpack"]:
        unpack(str(content / archive), str(prefix))
    env = activated(order["activation"])
    uv, own = str(content / "uv"), dict(env, UV_CACHE_DIR=str(cache / "uv"), **_UV)
    if order["python"]:  # else the archives brought their own
        options = ["--quiet", "--relocatable", "--no-project", "--python", order["python"]]
        execute([uv, "venv", *options, str(prefix)], own, folder)
    if order["requirements"]:
        wanted = content / "requirements.txt"
        write(wanted, order["requirements"])
        where = ["--python", str(prefix / "bin" / "python"), "--find-links", str(content)]
        execute([uv, *_INSTALL, "--compile-bytecode", *where, "--requirements", str(wanted)], own, folder)
    _name_place(prefix, Path(order["workdir"], "envs", order["key"], "prefix"))
    return env


def _lay_out(order: Json, content: Path) -> None:
    content.mkdir(0o700)
    for artifact in order["artifacts"]:
        source, target = admit(order["workdir"], artifact), content / artifact["name"]
        if artifact["tool"]:
            shutil.copyfile(source, target)
            target.chmod(0o700)
            continue
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            target.symlink_to(source)


def _name_place(prefix: Path, target: Path) -> None:
    """Let scripts that name the place where they were made name the one where they will lie."""
    for script in prefix.glob("bin/*"):
        if script.is_symlink() or not script.is_file():
            continue
        with script.open("rb") as file:
            content = file.read() if file.read(2) == b"#!" else b""
        if bytes(prefix) in content:
            mode = script.stat().st_mode
            script.unlink()  # it may share its content with the packer's cache
            script.write_bytes((b"#!" + content).replace(bytes(prefix), bytes(target)))
            script.chmod(stat.S_IMODE(mode))


def unpack(archive: str, prefix: str) -> None:
    """Unpack a tar of a prefix; nothing of it may lie outside, nor be written there through a link."""
    root, inside = os.path.realpath(prefix), set()
    with tarfile.open(archive) as tar:
        # Python 3.14 would refuse absolute links, which prefixes may hold.
        tar.extraction_filter = lambda member, path: member
        for member in tar:
            target = os.path.join(root, member.name)
            folder = os.path.dirname(target)
            safe = folder in inside or os.path.commonpath([os.path.realpath(folder), root]) == root
            kind = member.isdir() or ((member.isreg() or member.issym()) and not os.path.lexists(target))
            if not (safe and kind) or os.pardir in member.name.split("/"):
                raise Problem("tampered", "the archive holds %r, which may not be in one" % member.name)
            inside.add(folder)
            member.mode = (member.mode or 0o600) & 0o700
            tar.extract(member, prefix, set_attrs=not member.isdir())


def check(order: Optional[Json], folder: Path, manifest: Json, *, published: bool) -> Optional[Json]:
    """Let the environment's own interpreter compare itself with the manifest; a new one also tells what is there."""
    if order is None:  # it has no interpreter
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".json") as wanted:
        json.dump(manifest, wanted)
        wanted.flush()
        python, given = str(folder / "prefix" / "bin" / "python"), [str(folder)] if published else []
        argv = [python, "-I", "-c", order["program"], order["mode"], wanted.name, *given]
        done = run(argv, plain_environment())
    if done.returncode == 0:
        return None if published else json.loads(done.stdout.decode("utf-8"))
    if done.returncode == 3:
        raise Problem("differs", "the environment is not what the lock says", tail(done.stderr).splitlines())
    raise Problem("build_failed", "its Python can't check it: " + tail(done.stderr))
